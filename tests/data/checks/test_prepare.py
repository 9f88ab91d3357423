"""`bev-data prepare`: everything for all splits, again only what is missing, whole or not at all."""

import json
import shutil
import subprocess
import sys

import pytest

from bev_data.atomic import atomic_path
from bev_data.checks.prepare import prepare
from bev_data.commands.main import main
from bev_data.infos.infos import Infos, open_infos
from bev_data.nuscenes.splits import list_splits, split_tokens


@pytest.fixture
def root(database, tmp_path):
    """A database that a test may change."""
    return shutil.copytree(
        database, tmp_path / "data", ignore=shutil.ignore_patterns("infos", "depth_gt"), dirs_exist_ok=True
    )


def made(root):
    return {path.name: path.read_bytes() for path in sorted((root / "infos").iterdir())}


def test_all_splits_of_all_versions_are_prepared(root, write_database, tmp_path, capsys):
    other = write_database(tmp_path / "other", version="v1.0-test", scenes={"scene-0077": 2})
    shutil.move(other / "v1.0-test", root / "v1.0-test")
    assert main(["prepare", str(root), "--check", "none"]) == 0
    output = capsys.readouterr().out
    for version, split, frames in (
        ("v1.0-mini", "mini_train", 2),
        ("v1.0-mini", "mini_val", 4),
        ("v1.0-test", "test", 2),
    ):
        assert len(Infos.load(root / "infos" / f"{version}_{split}.arrow")) == frames
        assert any(line.split()[:3] == [version, split, str(frames)] for line in output.splitlines())
    assert "depth: computed from lidar while training" in output


def test_what_is_up_to_date_is_kept(root):
    first = prepare(root, check="none", depth_files=True, progress=False)
    assert [split.made for split in first.splits] == [True, True]
    assert first.depth_files == (12, 0)
    before = made(root)
    again = prepare(root, check="none", depth_files=True, progress=False)
    assert [split.made for split in again.splits] == [False, False]
    assert again.depth_files == (0, 12)
    assert made(root) == before
    more = prepare(root, splits=["mini_val"], num_sweeps=2, check="none", progress=False)
    assert [(split.made, split.infos.header.num_sweeps) for split in more.splits] == [(True, 2)]
    (root / "v1.0-mini" / "sensor.json").touch()
    assert all(split.made for split in prepare(root, check="none", progress=False).splits)


def test_loading_finds_what_was_prepared(root):
    prepare(root, check="none", progress=False)
    stamp = (root / "infos" / "v1.0-mini_mini_val.arrow").stat().st_mtime_ns
    infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
    assert infos.path.stat().st_mtime_ns == stamp


def test_splits_of_ones_own_become_known_by_name(root, tmp_path, capsys):
    words = tmp_path / "night.txt"
    words.write_text("scene-0061\nscene-0103-1\nscene-0103-2\n")
    several = tmp_path / "splits.json"
    several.write_text(json.dumps({"a": ["scene-0061"], "b": ["scene-0916", "scene-0103-0", "scene-0103-2"]}))
    files = ["--split-file", str(words), "--split-file", str(several)]
    assert main(["prepare", str(root), *files, "--check", "none"]) == 0
    assert list_splits(root, "v1.0-mini") == ["mini_train", "mini_val", "night", "a", "b"]
    night = open_infos(root, "v1.0-mini", "night", progress=False)
    assert [info.token for info in night] == ["scene-0061-0", "scene-0061-1", "scene-0103-1", "scene-0103-2"]
    # The predecessor of the third is not in the split.
    assert list(night.prev) == [-1, 0, -1, 2]
    assert list(open_infos(root, "v1.0-mini", "b", progress=False).prev) == [-1, -1, -1]
    assert split_tokens(root, "v1.0-mini", "b") == ["scene-0103-0", "scene-0103-2", "scene-0916-0"]
    # Defined anew, it is made anew.
    words.write_text("scene-0916")
    assert (
        main(["prepare", str(root), "--split-file", str(words), "--split", "night", "--check", "none"]) == 0
    )
    assert len(open_infos(root, "v1.0-mini", "night", progress=False)) == 1
    assert main(["show", str(root), "0", "--split", "night", "--out", str(tmp_path / "x.png")]) == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "mine.txt",
            "scene-0061 scene-9999",
            "split mine must list scenes or sample tokens of v1.0-mini, got 'sc",
        ),
        ("mini_val.txt", "scene-0061", "must not be named as an official one, got 'mini_val'"),
        ("x.json", '{"a/b": ["scene-0061"]}', "name of a split must be letters, digits"),
        ("x.json", '{"a": "scene-0061"}', "splits must map names to lists"),
        ("x.json", "[1", "the split file must be JSON or lines of text, got"),
        ("empty.txt", "", "splits must map names to lists"),
        ("x.json", "{}", "the split file must name a split, got none"),
    ],
)
def test_wrong_split_files_are_answered_in_one_sentence(root, tmp_path, capsys, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    assert main(["prepare", str(root), "--split-file", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not (root / "infos").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--version", "v1.0-test"], "must hold the folder v1.0-test, got versions: v1.0-mini"),
        (["--split", "val"], "must be some of: mini_train, mini_val; got val"),
        (["--split-file", "none.txt"], "the split file none.txt does not exist"),
        (["--split-file", "."], ". cannot be used: Is a directory; check the path"),
    ],
)
def test_wrong_input_is_answered_in_one_sentence(root, capsys, arguments, message):
    assert main(["prepare", str(root), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_missing_table_stops_before_any_work(root, capsys):
    (root / "v1.0-mini" / "instance.json").unlink()
    assert main(["prepare", str(root)]) == 2
    assert "the table instance.json must be in" in capsys.readouterr().err
    assert not (root / "infos").exists()


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("scene", "[1]", "scene.json (Expected `object`, got `int` - at `$[0]`)"),
        ("scene", '[{"token": "a"}]', "scene.json (Object missing required field `name` - at `$[0]`)"),
        ("scene", "", "the table must be JSON, got a damaged file: "),
        ("scene", "[]", "must have scenes of a split that is known, got none; add a split of your own"),
        ("sample_data", "[]", "must have camera images of the key frames, got none in mini_train"),
    ],
)
def test_an_unfit_table_is_answered_in_one_sentence(root, capsys, table, content, message):
    (root / "v1.0-mini" / f"{table}.json").write_text(content)
    assert main(["prepare", str(root)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (root / "infos").exists()


def test_a_row_of_another_kind_is_named(root, capsys):
    table = root / "v1.0-mini" / "ego_pose.json"
    rows = json.loads(table.read_text())
    rows[3]["rotation"] = rows[3]["rotation"][:3]
    table.write_text(json.dumps(rows))
    assert main(["prepare", str(root)]) == 2
    error = capsys.readouterr().err
    assert "ego_pose.json" in error
    assert "$[3].rotation" in error


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_that_fails_stops_it_with_the_files_name(root, capfd, workers):
    path = root / "samples" / "LIDAR_TOP" / "scene-0103-LIDAR_TOP-1.pcd.bin"
    path.write_bytes(b"")
    assert main(["prepare", str(root), "--depth-gt", "--workers", workers]) == 2
    error = capfd.readouterr().err
    assert f"got 0 bytes in {path}" in error
    assert "Traceback" not in error


def test_problems_are_shown_and_end_with_1(root, capsys):
    image = root / "samples" / "CAM_BACK" / "scene-0061-CAM_BACK-0.jpg"
    image.unlink()
    assert main(["prepare", str(root), "--workers", "1"]) == 1
    assert f"the image {image} is missing" in capsys.readouterr().out


# In a process of its own, since the limit would hold for whatever file the tests report to.
_SMALL_DISK = """
import resource, sys
from bev_data.commands.main import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def on_a_small_disk(size, *arguments):
    """Run bev-data where no file can grow beyond `size` bytes, as on a full disk; what it says."""
    command = [sys.executable, "-c", _SMALL_DISK, str(size), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_a_full_disk_is_named_with_the_file(root):
    error = on_a_small_disk(2000, "prepare", root, "--check", "none")
    assert f"{root / 'infos' / 'v1.0-mini_mini_train.arrow'} must be written, but cannot be" in error
    assert "free space" in error
    assert made(root) == {}
    prepare(root, check="none", progress=False)
    error = on_a_small_disk(60, "depth-gt", root, "--workers", "1")
    assert "depth_gt/scene-0061-CAM_FRONT-0.jpg.bin must be written, but cannot be" in error
    assert list((root / "depth_gt").iterdir()) == []


def test_leftovers_of_killed_runs_are_removed(root):
    folder = root / "infos"
    folder.mkdir()
    (folder / ".a.arrow.x.part").write_bytes(b"half")
    with atomic_path(folder / "b.arrow") as living:
        prepare(root, check="none", progress=False)
        assert living.exists()
    assert not (folder / ".a.arrow.x.part").exists()


# Kills `prepare` at ten moments spread over its run, each on a fresh copy; then lets it finish. The process
# that forks does nothing but fork, so that each run finds libraries as they are after their import.
_KILL = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from bev_data.infos.infos import Infos
from bev_data.checks.prepare import prepare
from nuscenes.utils import splits

source, scratch = Path(sys.argv[1]), Path(sys.argv[2])

def start(root):
    child = os.fork()
    if child == 0:
        for path in (root / "infos").glob("*.arrow"):
            Infos.load(path)[0]
        prepare(root, check="none", depth_files=True, progress=False)
        os._exit(0)
    return child

def finish(root):
    assert os.waitpid(start(root), 0)[1] == 0

def files(root):
    found = {p.relative_to(root): p for folder in ("infos", "depth_gt") for p in (root / folder).glob("*")}
    return {name: path.read_bytes() for name, path in found.items() if not path.name.endswith(".part")}

finish(shutil.copytree(source, scratch / "warm"))
began = time.perf_counter()
finish(shutil.copytree(source, scratch / "whole"))
duration, whole = time.perf_counter() - began, files(scratch / "whole")
rng, unfinished = random.Random(0), 0
for i in range(10):
    root = shutil.copytree(source, scratch / str(i))
    child = start(root)
    time.sleep(duration * (i + rng.random()) / 10)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = files(root)
    unfinished += left != whole
    # What is there is what an undisturbed run writes, to the last byte.
    assert left.items() <= whole.items(), sorted(left)
    finish(root)
    assert files(root) == whole
print(unfinished)
"""


def test_nothing_half_written_is_left_by_kill_9(database, tmp_path):
    ignored = shutil.ignore_patterns("infos", "depth_gt", "CAM_*")
    source = shutil.copytree(database, tmp_path / "source", ignore=ignored)
    command = [sys.executable, "-c", _KILL, str(source), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
