"""Two processes on the CPU score as one."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

DOUBLE = ("--trainer.strategy=ddp", "--trainer.devices=2")


@pytest.fixture
def double(config, tmp_path):
    """Run a command on two processes."""

    def run(command, *options, timeout=None):
        return subprocess.run(
            [sys.executable, "-m", "bev_train.cli", command, config, *options, *DOUBLE],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    return run


def test_two_processes_score_as_one(command, double, trained, tmp_path, logged):
    """Three key frames on two processes: one is seen twice and must count once."""
    options = ["--ckpt_path", trained.checkpoint, "--pictures.count", "0"]
    assert command("validate", "TINY", *options, "--output", "single").code == 0
    done = double("validate", *options, "--output", "double")
    assert done.returncode == 0, done.stderr
    one, two = logged(tmp_path / "single"), logged(tmp_path / "double")
    for step, name in one:
        # Losses are means over what each process saw.
        if name not in ("val/loss", "val/heatmap", "val/boxes", "val/depth"):
            assert float(two[step, name]) == pytest.approx(float(one[step, name]), rel=1e-5), name
