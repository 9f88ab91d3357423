"""Tables in nuScenes format that others than nuScenes publish."""

import json
import shutil

import numpy as np
import pytest

from bev_data.checks import check_version
from bev_data.commands.main import main
from bev_data.infos.infos import build_infos, open_infos
from bev_data.nuscenes.rows import AnnotationRow, SampleRow, read_rows
from bev_data.samples.dataset import select_boxes
from bev_data.scores.official import evaluate_detections
from bev_data.scores.results import ground_truth_results

SPLIT = ("v1.0-mini", "mini_val")


@pytest.fixture
def root(database, tmp_path):
    """A copy whose tables may be rewritten."""
    shutil.copytree(database, tmp_path / "d", ignore=shutil.ignore_patterns("infos"))
    return tmp_path / "d"


def rewrite(root, table, change, version="v1.0-mini"):
    path = root / version / f"{table}.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(change(rows) or rows))


def scores(root, version="v1.0-mini", split="mini_val"):
    infos = build_infos(root, version, split, progress=False)
    results = ground_truth_results(infos)
    return [
        evaluate_detections(results, root, version, split, engine=engine).class_ap
        for engine in ("devkit", "fast")
    ]


def test_a_version_folder_of_any_name_is_found(root, capsys):
    (root / "v1.0-mini").rename(root / "annotation")
    (root / "annotation" / "splits.json").write_text(json.dumps({"all": ["scene-0061", "scene-0103"]}))
    assert main(["prepare", str(root), "--version", "annotation", "--check", "tables"]) == 0
    assert "annotation      all" in capsys.readouterr().out
    assert main(["prepare", str(root), "--check", "none"]) == 0
    assert main(["show", str(root), "0", "--split", "all", "--out", str(root / "x.png")]) == 0


def fractions(rows):
    for row in rows:
        row["timestamp"] = row["timestamp"] + 0.4


def exponents(rows):
    for row in rows:
        row["timestamp"] = float(row["timestamp"])


@pytest.mark.parametrize("change", [fractions, exponents])
@pytest.mark.parametrize("table", ["sample", "sample_data", "ego_pose"])
def test_timestamps_may_have_a_fraction_or_an_exponent(root, table, change):
    expected = build_infos(root, *SPLIT, progress=False)
    rewrite(root, table, change)
    infos = build_infos(root, *SPLIT, progress=False)
    assert [info.timestamp for info in infos] == [info.timestamp for info in expected]
    assert infos[0].cameras["CAM_FRONT"].timestamp == expected[0].cameras["CAM_FRONT"].timestamp


def test_boxes_whose_points_nobody_counted_are_used(root):
    def unknown(rows):
        for row in rows:
            row["num_lidar_pts"] = -1

    expected = build_infos(root, *SPLIT, progress=False)[0].annotations
    rewrite(root, "sample_annotation", unknown)
    a = build_infos(root, *SPLIT, progress=False)[0].annotations
    assert (a.num_lidar_pts == -1).all()
    chosen, _ = select_boxes(a, ("car", "pedestrian", "bicycle"), min_points=1)
    # The bicycle has no points in the tables as they were.
    assert len(select_boxes(expected, ("car", "pedestrian", "bicycle"), min_points=1)[0]) == 2
    assert len(chosen) == 3
    assert not check_version(root, "v1.0-mini", fraction=0, progress=False).problems
    devkit, fast = scores(root)
    assert devkit == pytest.approx(fast)
    assert devkit["bicycle"] == pytest.approx(1)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_numbers_that_are_null_or_nan_are_unknown(root, missing):
    def unknown(rows):
        for row in rows:
            row["num_lidar_pts"] = missing
            row["note"] = float("nan")

    rewrite(root, "sample_annotation", unknown)
    (row, *_) = read_rows(root / "v1.0-mini", "sample_annotation", AnnotationRow)
    assert row.num_lidar_pts == -1


def test_a_byte_order_mark_and_extra_fields_and_tables_are_no_hindrance(root):
    expected = scores(root)
    for path in (root / "v1.0-mini").glob("*.json"):
        rows = json.loads(path.read_text())
        for row in rows:
            row["extra"] = {"nested": [1, None, float("nan")]}
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows).encode())
    for name in ("lidarseg", "panoptic", "image_annotations"):
        (root / "v1.0-mini" / f"{name}.json").write_text('[{"token": "x", "filename": "none.bin"}]')
    shutil.rmtree(root / "maps")
    shutil.rmtree(root / "infos")
    assert not check_version(root, "v1.0-mini", fraction=0, progress=False).problems
    assert scores(root) == expected
    assert expected[0]["car"] == pytest.approx(1)


def test_stand_ins_for_dropped_recordings_are_left_out(root):
    def drop_sweep(rows):
        # The last sweep before a key frame of scene-0103; the key frame links to it.
        names = {row["token"]: row for row in rows}
        key = names["scene-0103-CAM_FRONT-3"]
        assert key["is_key_frame"]
        dropped.append(names[key["prev"]]["filename"])
        names[key["prev"]]["is_valid"] = False
        for row in rows:
            row.setdefault("is_valid", True)

    dropped = []
    before = build_infos(root, *SPLIT, progress=False)
    rewrite(root, "sample_data", drop_sweep)
    infos = build_infos(root, *SPLIT, progress=False)
    files = {f.file for info in infos for step in info.sweeps for f in step.values()}
    assert dropped[0] not in files
    assert infos[1].sweeps[0]["CAM_FRONT"].file == before[1].sweeps[1]["CAM_FRONT"].file
    assert infos[1].sweeps[0]["CAM_BACK"].file == before[1].sweeps[0]["CAM_BACK"].file


def test_the_advice_fits(root):
    def broken(rows):
        rows[0]["timestamp"] = "yesterday"

    rewrite(root, "sample", broken)
    with pytest.raises(ValueError, match=r"rows as in nuScenes.*sample\.json.*write it in that format"):
        read_rows(root / "v1.0-mini", "sample", SampleRow)
    (root / "v1.0-mini" / "sample.json").write_text("[{")
    with pytest.raises(ValueError, match=r"damaged file.*unpack the metadata archive again"):
        read_rows(root / "v1.0-mini", "sample", SampleRow)


def without_image(root, token):
    """Take the row of one key-frame image out of sample_data, as where a camera dropped a frame."""

    def take(rows):
        gone = next(row for row in rows if row["token"] == token)
        for row in rows:
            if row["next"] == token:
                row["next"] = gone["next"]
            if row["prev"] == token:
                row["prev"] = gone["prev"]
        return [row for row in rows if row is not gone]

    rewrite(root, "sample_data", take)


def test_a_key_frame_without_a_camera_is_refused_or_left_out(root, capsys):
    without_image(root, "scene-0103-CAM_BACK-3")
    arguments = ["prepare", str(root), "--split", "mini_val", "--check", "tables"]
    assert main(arguments) == 2
    assert (
        "none of CAM_BACK for the sample scene-0103-1 of scene-0103; `bev-data prepare --incomplete drop`"
        in (capsys.readouterr().err)
    )
    assert main([*arguments, "--incomplete", "drop"]) == 0
    assert "1 key frames are left out: they lack an image" in capsys.readouterr().out
    infos = open_infos(root, *SPLIT, progress=False)
    assert infos.tokens == ["scene-0103-0", "scene-0103-2", "scene-0916-0"]
    assert infos.prev.tolist() == [-1, 0, -1]
    # Training makes them anew in the same way, where the tables change.
    rewrite(root, "scene", lambda rows: [{**row, "description": "new"} for row in rows])
    assert open_infos(root, *SPLIT, progress=False).tokens == infos.tokens
    # And preparing again keeps what was decided.
    assert main(arguments) == 0
    assert "kept:" in capsys.readouterr().out


def test_scores_need_no_images(root):
    complete = build_infos(root, *SPLIT, progress=False)
    results = ground_truth_results(complete)
    without_image(root, "scene-0103-CAM_BACK-3")
    for engine in ("devkit", "fast"):
        scored = evaluate_detections(results, root, *SPLIT, engine=engine)
        assert scored.class_ap["car"] == pytest.approx(1)
        assert scored.num_samples == 4


def test_a_partial_download_gives_what_is_whole(root, capsys):
    shutil.rmtree(root / "sweeps")
    for file in (
        "samples/CAM_BACK/scene-0103-CAM_BACK-3.jpg",
        "samples/LIDAR_TOP/scene-0061-LIDAR_TOP-1.pcd.bin",
    ):
        (root / file).unlink()
    assert main(["prepare", str(root), "--available", "--check", "tables"]) == 0
    output = capsys.readouterr().out
    assert output.count("1 key frames are left out: files of theirs are not there; v1.0-mini.tgz") == 2
    infos = open_infos(root, *SPLIT, progress=False)
    assert infos.tokens == ["scene-0103-0", "scene-0103-2", "scene-0916-0"]
    assert all(info.sweeps == () for info in infos)
    report = check_version(root, "v1.0-mini", progress=False, workers=1, incomplete="available")
    assert {problem.kind for problem in report.problems} <= {"box"}
    shutil.rmtree(root / "samples" / "CAM_FRONT")
    assert main(["prepare", str(root), "--available", "--check", "none"]) == 2
    assert "must have all of CAM_BACK, CAM_FRONT, LIDAR_TOP, got none" in capsys.readouterr().err


def test_annotations_at_one_moment_have_no_velocity(root):
    """Not an infinite one, and the check says so."""

    def tie(rows):
        for row in rows:
            row["timestamp"] = (
                rows[0]["timestamp"] if row["scene_token"] == "scene-0103" else row["timestamp"]
            )

    rewrite(root, "sample", tie)
    infos = build_infos(root, *SPLIT, progress=False)
    assert np.isnan(infos[0].annotations.velocities).all()
    problems = check_version(root, "v1.0-mini", fraction=0, progress=False).problems
    assert any("must be at another moment than the one before or after" in p.message for p in problems)


def test_a_camera_matrix_of_an_image_of_half_the_size_is_seen(root):
    def halve(rows):
        for row in rows:
            if row["camera_intrinsic"]:
                row["camera_intrinsic"] = [[v / 2 for v in line] for line in row["camera_intrinsic"][:2]] + [
                    [0, 0, 1]
                ]

    rewrite(root, "calibrated_sensor", halve)
    problems = check_version(root, "v1.0-mini", fraction=0, progress=False).problems
    assert sum("principal point near the middle" in problem.message for problem in problems) == 2


@pytest.mark.parametrize("engine", ["devkit", "fast"])
def test_results_in_another_frame_are_told(root, engine):
    results = ground_truth_results(build_infos(root, *SPLIT, progress=False))
    for entries in results.values():
        for entry in entries:
            entry["translation"] = [x - 1000 for x in entry["translation"]]
    with pytest.warns(UserWarning, match=r"no box lies within 50 m of the vehicle, the nearest at 14\d\d m"):
        evaluate_detections(results, root, *SPLIT, engine=engine)
