"""`python -m bev_ops`."""

import re

import pytest
import torch

from bev_ops import devices, doctor


def test_doctor_reports_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.main()
    told = capsys.readouterr().out
    assert re.search(r"self-test on cpu.*: passed", told)
    assert "cpu: " in told
    assert code == (0 if devices.native else 1)


def test_doctor_finds_a_wrong_kernel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_TOLERANCE", -1.0)
    assert doctor.main() == 1
    assert "WRONG: cpu: lift_splat differs" in capsys.readouterr().out


@pytest.mark.skipif(devices.built_for_cuda(), reason="the kernels for CUDA are there")
def test_a_build_without_cuda_says_so_where_a_gpu_asks_for_it() -> None:
    with pytest.warns(
        RuntimeWarning, match=r"plain torch on cuda:7.*built without CUDA; with nvcc on PATH, `pip"
    ):
        devices.warn_of_plain_torch(torch.device("cuda:7"))
