"""Boxes to nuScenes results and back, and their files."""

import json

import numpy as np
import pytest

from bev_data.errors import InputError
from bev_data.geometry import pose
from bev_data.infos.infos import build_infos
from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.samples.dataset import History, KeyFrameDataset
from bev_data.scores.results import (
    attribute_of,
    check_results,
    from_nuscenes_results,
    ground_truth_results,
    read_results,
    to_nuscenes_results,
    write_results,
)

POSE = pose([0.9, 0.01, -0.02, 0.4], [1000, 600, 0.5])
BOXES = np.array([[10.0, 2, 0.5, 4.5, 1.9, 1.6, 0.3, 5, 0.1], [-8, 1, 0.2, 0.6, 0.7, 1.8, -2, 0, 0]])


@pytest.mark.parametrize("case", [0, 1])
def test_results_are_the_published_ones(goldens, case):
    expected = goldens.json("format_bbox")["results"][f"tok{case}"]
    expected = sorted(expected, key=lambda entry: -entry["detection_score"])
    arrays = goldens.arrays
    boxes, scores, labels = (arrays[f"eval.{n}"][: len(expected)] for n in ("boxes", "scores", "labels"))
    keyego2global = pose(arrays[f"eval.rot{case}"], arrays[f"eval.trans{case}"])
    results = to_nuscenes_results(f"tok{case}", keyego2global, boxes, scores, labels)
    assert len(results) == len(expected)
    for got, want in zip(results, expected, strict=True):
        for name in ("sample_token", "detection_name", "attribute_name"):
            assert got[name] == want[name]
        for name in ("translation", "size", "velocity", "detection_score"):
            np.testing.assert_allclose(got[name], want[name], rtol=1e-12, atol=1e-12)
        sign = np.sign(np.dot(got["rotation"], want["rotation"]))
        np.testing.assert_allclose(np.multiply(got["rotation"], sign), want["rotation"], atol=1e-12)


def test_results_lead_back_to_the_boxes():
    entries = to_nuscenes_results("t", POSE, BOXES, [0.3, 0.9], [0, 8])
    boxes, scores, labels = from_nuscenes_results(entries, POSE)
    # Velocities are horizontal in the map, the tilted ego sees them a little shorter.
    np.testing.assert_allclose(boxes[::-1, :7], BOXES[:, :7], atol=1e-9)
    np.testing.assert_allclose(boxes[::-1, 7:], BOXES[:, 7:], atol=0.02)
    assert scores.tolist() == [0.9, 0.3]
    assert labels.tolist() == [8, 0]
    assert from_nuscenes_results([], POSE)[0].shape == (0, 9)


def test_true_boxes_survive_dataset_and_results(database, mini_val):
    """Annotations -> sample -> results: the same boxes in the map."""
    dataset = KeyFrameDataset(mini_val, database, image_size=(32, 64), history=History(frames=0))
    truth = ground_truth_results(mini_val)
    for i in range(len(dataset)):
        boxes, labels = dataset.boxes(mini_val[i])
        meta = dataset[i].meta
        boxes = np.nan_to_num(boxes)
        results = to_nuscenes_results(meta.token, meta.keyego2global, boxes, np.ones(len(boxes)), labels)
        for got, want in zip(results, truth[meta.token], strict=True):
            assert got["detection_name"] == want["detection_name"]
            for name in ("translation", "size", "velocity"):
                np.testing.assert_allclose(got[name], want[name], atol=1e-9)
            np.testing.assert_allclose(np.abs(np.dot(got["rotation"], want["rotation"])), 1, atol=1e-9)


def test_attributes_go_by_class_and_speed():
    slow = {name: attribute_of(name, 0.1) for name in CLASSES}
    fast = {name: attribute_of(name, 2.0) for name in CLASSES}
    assert (slow["car"], fast["car"]) == ("vehicle.parked", "vehicle.moving")
    assert (slow["bus"], fast["bus"]) == ("vehicle.stopped", "vehicle.moving")
    assert (slow["pedestrian"], fast["pedestrian"]) == ("pedestrian.standing", "pedestrian.moving")
    assert (slow["bicycle"], fast["bicycle"]) == ("cycle.without_rider", "cycle.with_rider")
    assert slow["barrier"] == fast["traffic_cone"] == ""
    assert attribute_of("car", float("nan")) == "vehicle.parked"


def test_the_best_500_boxes_are_kept():
    scores = np.random.default_rng(0).random(600)
    entries = to_nuscenes_results("t", POSE, np.tile(BOXES[:1], (600, 1)), scores, np.zeros(600, int))
    assert [entry["detection_score"] for entry in entries] == sorted(scores.tolist(), reverse=True)[:500]


def test_what_is_no_box_is_refused():
    with pytest.raises(ValueError, match="got 2 boxes, 1 scores and 2 labels for t"):
        to_nuscenes_results("t", POSE, BOXES, [0.3], [0, 8])
    broken = BOXES.copy()
    broken[1, 7] = np.nan
    with pytest.raises(ValueError, match="finite numbers, got NaN or infinity for t"):
        to_nuscenes_results("t", POSE, broken, [0.3, 0.9], [0, 8])


def test_a_file_gives_back_what_was_written(mini_val, tmp_path):
    results = ground_truth_results(mini_val)
    path = tmp_path / "deep" / "results.json"
    write_results(results, path, tokens=mini_val.tokens)
    assert read_results(path) == results
    assert json.loads(path.read_text())["meta"]["use_camera"] is True
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def entry(**changes):
    good = to_nuscenes_results("t", POSE, BOXES[:1], [0.5], [0])[0]
    return {"t": [{**good, **changes}]}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (entry(sample_token="u"), "must carry that sample_token, got 'u'"),
        (entry(translation=[1.0, 2.0]), r"translation must be 3 finite numbers, got \[1.0, 2.0\] for t"),
        (entry(velocity=[0.0, float("nan")]), "velocity must be 2 finite numbers"),
        (
            entry(size=[1.0, 0.0, 2.0]),
            r"size must be 3 finite numbers above 0 m, got \[1.0, 0.0, 2.0\] for t",
        ),
        (entry(detection_score="high"), "detection_score must be a number from 0 to 1, got 'high'"),
        (entry(detection_score=1.5), "detection_score must be a number from 0 to 1, got 1.5 for t"),
        (entry(detection_score="0.5"), "detection_score must be a number from 0 to 1, got '0.5'"),
        (entry(detection_score=True), "detection_score must be a number from 0 to 1, got True"),
        (entry(rotation=[0.0, 0.0, 0.0, 0.0]), "rotation must be 4 finite numbers, not all 0"),
        (entry(rotation=[1.0, 0.0]), r"rotation must be 4 finite numbers, not all 0, got \[1.0, 0.0\]"),
        (entry(translation=["1", "2", "3"]), "translation must be 3 finite numbers"),
        (entry(translation=[10**400, 0, 0]), "translation must be 3 finite numbers, got .*00"),
        (entry(detection_name=["car"]), r"detection_name must be one of car, .* got \['car'\]"),
        (entry(detection_name="tank"), "detection_name must be one of car, .* got 'tank'"),
        (entry(attribute_name="flying"), "attribute_name must be one of .* got 'flying'"),
        ({"t": entry()["t"] * 501}, "at most 500 boxes, got 501 for t"),
    ],
)
def test_what_the_evaluation_would_refuse_is_not_written(results, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_results(results, tmp_path / "r.json")
    assert not any(tmp_path.iterdir())


def test_every_sample_of_the_split_must_be_there():
    with pytest.raises(ValueError, match="got 1 missing and 0 unknown ones, such as u"):
        check_results(entry(), ["t", "u"])
    with pytest.raises(ValueError, match="got 0 missing and 1 unknown ones, such as t"):
        check_results(entry(), [])


@pytest.mark.parametrize(
    ("content", "message"), [("{", "must be JSON"), ("[]", "must have the form"), ("{}", "form")]
)
def test_files_that_are_no_results_are_named(tmp_path, content, message):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"{message}.*r\.json"):
        read_results(path)
    with pytest.raises(FileNotFoundError, match=r"none\.json does not exist"):
        read_results(tmp_path / "none.json")


def test_results_of_a_test_split_are_ready_to_submit(write_database, tmp_path):
    """Without annotations: every key frame has an entry, and the devkit's loader takes the file."""
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox

    root = write_database(
        tmp_path / "d", version="v1.0-test", scenes={"scene-0077": 2, "scene-0078": 1}, annotations=False
    )
    infos = build_infos(root, "v1.0-test", "test", progress=False)
    results = {
        info.token: to_nuscenes_results(info.token, info.keyego2global, BOXES, [0.3, 0.9], [0, 8])
        for info in infos
    }
    write_results(results, tmp_path / "test.json", tokens=infos.tokens)
    boxes, meta = load_prediction(str(tmp_path / "test.json"), 500, DetectionBox)
    assert sorted(boxes.sample_tokens) == sorted(infos.tokens)
    assert len(boxes.all) == 6
    assert set(meta) == {f"use_{what}" for what in ("camera", "lidar", "radar", "map", "external")}
    del results[infos.tokens[2]]
    with pytest.raises(ValueError, match="got 1 missing and 0 unknown ones"):
        write_results(results, tmp_path / "test.json", tokens=infos.tokens)


ENTRY = json.dumps(entry()["t"][0])
SCORE = "detection_score must be a number from 0 to 1"


def scored(text):
    """A list of one box whose score is written so."""
    before = '"detection_score": 0.5'
    assert before in ENTRY
    return "[" + ENTRY.replace(before, before[:-3] + text) + "]"


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("[null]", "a box must be a mapping of its fields, got None for t"),
        ("[1]", "a box must be a mapping of its fields, got 1 for t"),
        (f'[{ENTRY[:-1]}, "size": [1, 2, 3]}}]', "must say each thing once, got 'size' twice"),
        (f'[{ENTRY}], "t": [{ENTRY}]', "must say each thing once, got 't' twice"),
        (scored("1" + "0" * 400), SCORE),
        (scored("1" + "0" * 5000), "r.json"),
        (scored("NaN"), "r.json"),
        (scored("-0.5"), f"{SCORE}, got -0.5 for t"),
        ("[" * 100_000, "must be JSON"),
        ("[" * 100_000 + "]" * 100_000, "r.json"),
        ("{}", "must have the form"),
        ("null", "must have the form"),
    ],
)
def test_files_with_broken_boxes_are_one_sentence(tmp_path, boxes, message):
    path = tmp_path / "r.json"
    path.write_text(f'{{"meta": {{}}, "results": {{"t": {boxes}}}}}')
    with pytest.raises(InputError, match=message):
        read_results(path)


def test_fields_of_others_do_not_count_as_twice(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(f'{{"meta": {{"size": 3}}, "results": {{"t": [{ENTRY}]}}}}')
    assert read_results(path) == entry()
