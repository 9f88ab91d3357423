"""`python -m bev_ops`."""

import re

import pytest

from bev_ops import _native_ops, cli


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
