"""`python -m bev_ops`."""

import re

import pytest

from bev_ops import _cuda_devices, _native_ops, cli


def test_doctor_reports_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main()
    told = capsys.readouterr().out
    assert re.search(r"self-test on cpu.*: passed", told)
    assert "cpu: " in told
    assert code == (0 if _native_ops.native else 1)


def test_doctor_finds_a_wrong_kernel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_TOLERANCE", -1.0)
    assert cli.main() == 1
    assert "WRONG: cpu: lift_splat differs" in capsys.readouterr().out


@pytest.mark.skipif(_cuda_devices.built(), reason="the kernels for CUDA are there")
def test_a_build_without_cuda_says_so_where_a_gpu_asks_for_it() -> None:
    with pytest.warns(
        RuntimeWarning, match=r"plain torch on cuda:7.*built without CUDA; with nvcc on PATH, `pip"
    ):
        assert not _cuda_devices.runs(7)
