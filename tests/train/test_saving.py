"""What a run writes: checkpoints whole or not at all, with room, in a folder of its own."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

from bev_data.atomic import atomic_path, remove_leftovers
from bev_data.errors import WriteError
from bev_train.errors import InputError, explain
from bev_train.folder import check_room, only_run
from bev_train.saving import WholeCheckpoints

pytestmark = pytest.mark.slow

CHECKPOINT = {"state_dict": {"weight": torch.arange(1000.0)}}


@pytest.fixture
def checkpoints():
    return WholeCheckpoints()


def test_what_is_saved_can_be_loaded_and_does_not_depend_on_its_path(checkpoints, tmp_path):
    for name in ("a/last.ckpt", "b/other.ckpt"):
        checkpoints.save_checkpoint(CHECKPOINT, tmp_path / name)
    assert (tmp_path / "a/last.ckpt").read_bytes() == (tmp_path / "b/other.ckpt").read_bytes()
    loaded = checkpoints.load_checkpoint(tmp_path / "a/last.ckpt", weights_only=True)
    assert torch.equal(loaded["state_dict"]["weight"], CHECKPOINT["state_dict"]["weight"])


def test_the_folder_for_temporary_files_is_left_alone(checkpoints, tmp_path, monkeypatch):
    """It may be on another disk, or full."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.tempdir", None)
    checkpoints.save_checkpoint(CHECKPOINT, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").is_file()


def test_an_error_while_writing_keeps_the_checkpoint_before(checkpoints, tmp_path):
    path = tmp_path / "last.ckpt"
    checkpoints.save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()

    class Unwritable:
        def __reduce__(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(
        WriteError, match=r"last\.ckpt must be written, but cannot be: No space left on device"
    ):
        checkpoints.save_checkpoint({**CHECKPOINT, "more": Unwritable()}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_an_error(checkpoints, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(WriteError, match="cannot be"):
        checkpoints.save_checkpoint(CHECKPOINT, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(InputError, match=r"the checkpoints folder .*checkpoints must be writable"):
        check_room(tmp_path / "checkpoints", 1, ["last.ckpt"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another user")
def test_a_folder_of_somebody_else_is_refused(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir(mode=0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            check_room(folder, 1, ["last.ckpt"])
        except InputError as error:
            os._exit(0 if "Permission denied" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_room_is_looked_for_before_training(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(
        InputError, match=r"must have room for 3 checkpoints of .* MB at once, that is .* MB more"
    ):
        check_room(tmp_path, free, ["best.ckpt", "last.ckpt"])
    check_room(tmp_path, 1000, ["best.ckpt", "last.ckpt"])
    # What is there will be replaced, and counts as room.
    with (tmp_path / "last.ckpt").open("wb") as file:
        file.truncate(10 * free)
    check_room(tmp_path, free, ["best.ckpt", "last.ckpt"])
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_leftovers_of_the_dead_go_and_files_of_the_living_stay(tmp_path):
    (tmp_path / ".last.ckpt.x1y2.part").write_bytes(b"half")
    (tmp_path / "last.ckpt").write_bytes(b"whole")
    with atomic_path(tmp_path / "best.ckpt") as living:
        assert remove_leftovers(tmp_path) == 4
        living.write_bytes(b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "best.ckpt": b"new",
        "last.ckpt": b"whole",
    }
    assert remove_leftovers(tmp_path / "none") == 0


_HOLD = """
import sys, time
from pathlib import Path
from bev_train.folder import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_folder_takes_one_run_at_a_time(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", _HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError) as refused, only_run(tmp_path):
        pass
    assert f"but process {other.pid} on " in str(refused.value)
    assert time.strftime("since %Y-") in str(refused.value)
    # A kill leaves no lock behind.
    other.kill()
    other.wait()
    other.stdout.close()
    with only_run(tmp_path):
        pass
    with only_run(tmp_path):
        pass


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("DataLoader worker (pid 77) is killed by signal: Killed. ", "data worker 77 was ended from outside"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "data worker 7, 8 was ended from outside"),
        (
            "DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's "
            "workers are out of shared memory. Please try to raise your shared memory limit.",
            "make the infos anew with `bev-data prepare`, or give more shared memory",
        ),
    ],
)
def test_a_lost_data_worker_is_one_sentence(error, sentence):
    explained = explain(RuntimeError(error))
    assert explained is not None
    assert sentence in explained
    assert "\n" not in explained
