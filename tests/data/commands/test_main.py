"""The commands, as a user calls them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bev_data.commands.main import main
from bev_data.infos.infos import Infos, open_infos
from bev_data.samples.lidar_depth import read_depth_file
from bev_data.scores.results import ground_truth_results, write_results


@pytest.fixture
def root(write_database, tmp_path):
    return write_database(tmp_path / "data")


def test_infos(root, tmp_path, capsys):
    assert main(["infos", str(root)]) == 0
    assert [path.name for path in sorted((root / "infos").iterdir())] == [
        "v1.0-mini_mini_train.arrow",
        "v1.0-mini_mini_val.arrow",
    ]
    assert "mini_val: 4 key frames, 2 cameras, 20 boxes" in capsys.readouterr().out
    assert main(["infos", str(root), "--split", "mini_val", "--out", str(tmp_path / "out")]) == 0
    assert len(Infos.load(tmp_path / "out" / "v1.0-mini_mini_val.arrow")) == 4


def test_depth_gt(root, capsys):
    assert main(["depth-gt", str(root), "--workers", "1"]) == 0
    assert "12 depth files written, 0 kept" in capsys.readouterr().out
    info = open_infos(root, "v1.0-mini", "mini_val")[2]
    assert len(read_depth_file(root, info.cameras["CAM_BACK"])) > 10
    assert main(["depth-gt", str(root), "--workers", "1"]) == 0
    assert "0 depth files written, 12 kept" in capsys.readouterr().out


def test_show(root, tmp_path):
    out = tmp_path / "pictures" / "sample.png"
    assert main(["show", str(root), "1", "--out", str(out)]) == 0
    by_index = np.asarray(Image.open(out))
    assert main(["show", str(root), "scene-0103-1", "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), by_index)
    results = tmp_path / "results.json"
    write_results(ground_truth_results(open_infos(root, "v1.0-mini", "mini_val")), results)
    assert main(["show", str(root), "1", "--out", str(out), "--results", str(results)]) == 0
    assert not np.array_equal(np.asarray(Image.open(out)), by_index)


def test_eval(root, tmp_path, capsys):
    results = tmp_path / "results.json"
    write_results(ground_truth_results(open_infos(root, "v1.0-mini", "mini_val")), results)
    arguments = ["eval", str(root), str(results), "--class-range", "25", "--out", str(tmp_path / "m.json")]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "v1.0-mini mini_val, 4 key frames, by the devkit's code" in output
    assert "mAP 0.3000" in output
    written = json.loads((tmp_path / "m.json").read_text())
    assert written["mAP"] == pytest.approx(0.3)
    assert written["class_range"]["car"] == 25
    assert written["engine"] == "devkit"


def test_eval_by_the_fast_engine(root, tmp_path, capsys):
    results = tmp_path / "results.json"
    write_results(ground_truth_results(open_infos(root, "v1.0-mini", "mini_val")), results)
    tables = {}
    for engine in ("devkit", "fast"):
        out = tmp_path / f"{engine}.json"
        assert main(["eval", str(root), str(results), "--engine", engine, "--out", str(out)]) == 0
        title, *tables[engine] = capsys.readouterr().out.splitlines()
        assert json.loads(out.read_text())["engine"] == engine
    assert title == "v1.0-mini mini_val, 4 key frames, by the fast engine"
    assert tables["fast"] == tables["devkit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infos", "{root}/nowhere"], "the data root must be a folder"),
        (
            ["infos", "{root}", "--version", "v1.0-trainval"],
            "must hold the folder v1.0-trainval, got versions: v1.0-mini",
        ),
        (["infos", "{root}", "--split", "val"], "must be one of: mini_train, mini_val; got 'val'"),
        (
            ["show", "{root}", "9", "--out", "x.png"],
            "the index must be below 4, the key frames of mini_val, got 9",
        ),
        (["show", "{root}", "none", "--out", "x.png"], "must be a token of v1.0-mini"),
        (["show", "{root}", "0", "--out", "x.gif"], "must be a .png or .jpg file, got x.gif"),
        (["eval", "{root}", "{root}/none.json"], "none.json does not exist"),
        (["eval", "{root}", "{root}"], "cannot be used: Is a directory"),
    ],
)
def test_wrong_input_is_answered_in_one_sentence(root, capsys, arguments, message):
    assert main([argument.format(root=root) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"bev-data {arguments[0]}: ")
    assert message in error


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_sweep_stops_depth_gt_with_its_name(root, capfd, workers):
    path = root / "samples" / "LIDAR_TOP" / "scene-0103-LIDAR_TOP-1.pcd.bin"
    path.write_bytes(b"")
    assert main(["depth-gt", str(root), "--workers", workers]) == 2
    error = capfd.readouterr().err
    assert f"got 0 bytes in {path}" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "command", ["prepare", "check", "import", "export", "infos", "depth-gt", "synth", "show", "eval"]
)
def test_help_teaches(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f":\n  bev-data {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["depth-gt", "{root}", "--workers", "0"], "must be 1 or more, got 0"),
        (["depth-gt", "{root}", "--workers", "many"], "must be 1 or more, got many"),
        (["check", "{root}", "--fraction", "2"], "must be in 0 to 1, got 2"),
        (["check", "{root}", "--fraction", "half"], "must be a number, got half"),
        (["show", "{root}", "0", "--out", "x.png", "--range", "-1"], "must be above 0, got -1"),
    ],
)
def test_wrong_numbers_are_refused(root, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main([argument.format(root=root) for argument in arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_is_installed(root):
    command = [sys.executable, "-c", "import sys; from bev_data.commands.main import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "infos", str(root / "nowhere")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
