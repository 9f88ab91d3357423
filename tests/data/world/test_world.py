"""Writing a rendered world: repeatable, resumable, and clear about what it cannot do."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bev_data.commands.main import main
from bev_data.world import write_world
from bev_data.world.database.record import WorldSpec
from bev_data.world.world import scene_names

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "scenes": 2,
    "image_size": (128, 72),
    "key_frames": 2,
    "sweep_hz": 0,
    "supersample": 1,
    "progress": False,
}


def contents(root: Path) -> dict[str, str]:
    """Digest of every file by its name."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("small") / "world", workers=1, **SMALL)


def test_the_world_does_not_depend_on_the_number_of_workers(small: Path, tmp_path: Path) -> None:
    assert contents(write_world(tmp_path / "world", workers=2, **SMALL)) == contents(small)


def test_another_seed_is_another_world(small: Path, tmp_path: Path) -> None:
    other = contents(write_world(tmp_path / "world", **{**SMALL, "seed": 1}))
    assert not set(other) & {name for name in contents(small) if name.endswith(".bin")}


def test_a_stopped_world_goes_on_after_its_finished_scenes(small: Path, tmp_path: Path) -> None:
    root = tmp_path / "world"
    reference = contents(small)
    # The second scene cannot write its map at its end: a folder has its name.
    mask = scene_mask(small, "scene-0103")
    root.mkdir()
    shutil.copy(small / "synthetic.json", root)
    (root / "maps" / mask / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="maps"):
        write_world(root, workers=1, **SMALL)
    assert not (root / "v1.0-mini").exists()
    finished = sorted((root / "samples" / "LIDAR_TOP").glob("*0061*"))
    times = [path.stat().st_mtime_ns for path in finished]
    shutil.rmtree(root / "maps" / mask)
    write_world(root, workers=1, **SMALL)
    assert [path.stat().st_mtime_ns for path in finished] == times
    assert contents(root) == reference


def scene_mask(root: Path, scene: str) -> str:
    """File name of the map mask of a scene."""
    scenes, maps = (json.loads((root / f"v1.0-mini/{name}.json").read_text()) for name in ("scene", "map"))
    log = next(row["log_token"] for row in scenes if row["name"] == scene)
    return Path(next(row["filename"] for row in maps if log in row["log_tokens"])).name


def test_a_complete_world_is_left_alone(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    write_world(small, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_another_world_in_the_folder_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match=r"must be empty or hold the same world.*seed 0 instead of 3"):
        write_world(small, **{**SMALL, "seed": 3})


def test_other_files_in_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="got other files in it"):
        write_world(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="must be a folder, got a file"):
        write_world(tmp_path / "notes.txt", **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": 1}, "scenes must be 2 to 850"),
        ({"scenes": 851}, "scenes must be 2 to 850"),
        ({"val_scenes": 2}, "val_scenes must be 1 to 1 of 2 scenes"),
        ({"scenes": 300, "val_scenes": 200}, "nuScenes names 700 training and 150 validation scenes"),
        ({"image_size": (800, 600)}, "image_size must be 16 : 9"),
        ({"image_size": (64, 36)}, "at least 128 pixels wide"),
        ({"key_frames": 1}, "key_frames must be at least 2"),
        ({"sweep_hz": 5}, "sweep_hz must be an even number from 4 to 24"),
        ({"supersample": 9}, "supersample must be 1 to 8"),
        ({"seed": -1}, "seed must not be negative"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_world(tmp_path / "world", **{**SMALL, **change})
    assert not (tmp_path / "world").exists()


def spec(scenes: int, val_scenes: int) -> WorldSpec:
    return WorldSpec(scenes, val_scenes, 0, (800, 450), 20, 12, 1)


def test_scene_names_are_the_official_ones() -> None:
    version, names = scene_names(spec(10, 2))
    assert (version, names[0], names[-1], len(set(names))) == ("v1.0-mini", "scene-0061", "scene-0916", 10)
    version, names = scene_names(spec(46, 6))
    assert (version, names[0], len(set(names))) == ("v1.0-trainval", "scene-0001", 46)
    assert names[-6:] == ["scene-0003", "scene-0012", "scene-0013", "scene-0014", "scene-0015", "scene-0016"]


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "world"), "--image-size", "300x300"]) == 2
    assert "image_size must be 16 : 9" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["synth", str(tmp_path / "world"), "--image-size", "large"])
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


def test_the_command_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["synth", "--help"])
    assert "bev-data synth data/small --image-size 400x225" in capsys.readouterr().out
