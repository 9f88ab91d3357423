"""The official evaluation as a function: its numbers are those of the devkit's DetectionEval."""

import numpy as np
import pytest
import torch
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval

from bev_data.infos.infos import build_infos
from bev_data.nuscenes.versions import load_devkit
from bev_data.samples.batch import collate
from bev_data.samples.dataset import History, KeyFrameDataset
from bev_data.scores.depth import (
    depth_error_sums,
    depth_quality,
    depth_scores,
    in_boxes,
    lidar_points,
)
from bev_data.scores.official import evaluate_detections
from bev_data.scores.results import ground_truth_results, to_nuscenes_results, write_results

ERRORS = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}
PRESENT = {"car", "pedestrian", "traffic_cone"}


@pytest.fixture(scope="module")
def imperfect(mini_val):
    """Detections that are off in place, size, heading and speed, with misses and false alarms."""
    rng = np.random.default_rng(7)
    results = {}
    for info, entries in zip(mini_val, ground_truth_results(mini_val).values(), strict=True):
        noisy = []
        for entry in entries * 4:
            shift = rng.normal(0, [0.8, 0.8, 0.1])
            noisy.append(
                {
                    **entry,
                    "translation": (np.array(entry["translation"]) + shift).tolist(),
                    "size": (np.array(entry["size"]) * rng.uniform(0.8, 1.2, 3)).tolist(),
                    "rotation": (np.array(entry["rotation"]) + rng.normal(0, 0.1, 4)).tolist(),
                    "velocity": rng.normal(0, 1, 2).tolist(),
                    "detection_score": float(rng.random()),
                }
            )
        results[info.token] = noisy
    return results


def test_truth_is_perfect_for_every_class_there_is(database, mini_val):
    metrics = evaluate_detections(ground_truth_results(mini_val), database, "v1.0-mini", "mini_val")
    assert {name: round(ap, 12) for name, ap in metrics.class_ap.items() if ap} == dict.fromkeys(PRESENT, 1.0)
    assert metrics.mAP == pytest.approx(0.3)
    assert metrics.class_errors["car"]["ATE"] == 0
    assert np.isnan(metrics.class_errors["traffic_cone"]["AOE"])
    assert metrics.num_samples == 4
    assert metrics.summary()["AP/car"] == pytest.approx(1)


def test_numbers_are_the_devkits(database, mini_val, imperfect, tmp_path):
    write_results(imperfect, tmp_path / "r.json", tokens=mini_val.tokens)
    tables = load_devkit(database, "v1.0-mini")
    config = config_factory("detection_cvpr_2019")
    evaluation = DetectionEval(
        tables, config, str(tmp_path / "r.json"), "mini_val", str(tmp_path), verbose=False
    )
    official, _ = evaluation.evaluate()
    metrics = evaluate_detections(imperfect, database, "v1.0-mini", "mini_val")
    assert 0.02 < metrics.mAP < 0.28
    assert metrics.mAP == pytest.approx(official.mean_ap, abs=1e-12)
    assert pytest.approx(official.nd_score, abs=1e-12) == metrics.NDS
    for name, short in ERRORS.items():
        assert getattr(metrics, short) == pytest.approx(official.tp_errors[name], abs=1e-12)
    for name, ap in official.mean_dist_aps.items():
        assert metrics.class_ap[name] == pytest.approx(ap, abs=1e-12)
    assert metrics.class_range == config.class_range


def test_evaluating_again_gives_the_same(database, imperfect):
    first = evaluate_detections(imperfect, database, "v1.0-mini", "mini_val", class_range=5)
    whole = evaluate_detections(imperfect, database, "v1.0-mini", "mini_val")
    again = evaluate_detections(imperfect, database, "v1.0-mini", "mini_val", class_range=5)
    assert first.summary() == again.summary() != whole.summary()


def test_nothing_is_printed_or_written(database, imperfect, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate_detections(imperfect, database, "v1.0-mini", "mini_val")
    assert capfd.readouterr() == ("", "")
    assert not any(tmp_path.iterdir())


def test_a_subset_of_samples(database, mini_val):
    results = ground_truth_results(mini_val)
    tokens = mini_val.tokens[1:3]
    one_missed = {**results, tokens[0]: []}
    metrics = evaluate_detections(one_missed, database, "v1.0-mini", "mini_val", tokens=tokens)
    assert metrics.num_samples == 2
    assert 0.3 < metrics.class_ap["car"] < 0.6
    only_needed = {token: one_missed[token] for token in tokens}
    assert (
        evaluate_detections(only_needed, database, "v1.0-mini", "mini_val", tokens=tokens).summary()
        == metrics.summary()
    )


def test_ranges_are_capped_at_the_official_ones(database, mini_val):
    results = ground_truth_results(mini_val)
    metrics = evaluate_detections(results, database, "v1.0-mini", "mini_val", class_range=35)
    assert metrics.class_range["car"] == 35
    assert metrics.class_range["traffic_cone"] == 30
    # The cone is 9 to 11 m away: a range of 2 m leaves none.
    near = evaluate_detections(results, database, "v1.0-mini", "mini_val", class_range={"traffic_cone": 2})
    assert near.class_ap["traffic_cone"] == 0
    assert near.class_ap["car"] == pytest.approx(1)


def test_no_detections_at_all_score_nothing(database, mini_val):
    metrics = evaluate_detections({token: [] for token in mini_val.tokens}, database, "v1.0-mini", "mini_val")
    assert (metrics.mAP, metrics.NDS, metrics.mATE) == (0, 0, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "val"}, "one of: mini_train, mini_val; got 'val'"),
        ({"tokens": ["scene-0061-0"]}, "samples of the split mini_val, got .*scene-0061-0"),
        ({"tokens": []}, "got none at all"),
        ({"class_range": 0}, "above 0 m, got 0"),
        ({"class_range": {"tank": 5}}, "detection classes, got 'tank'"),
    ],
)
def test_wrong_questions_are_answered(database, mini_val, settings, message):
    results = ground_truth_results(mini_val)
    with pytest.raises(ValueError, match=message):
        evaluate_detections(results, database, "v1.0-mini", **{"split": "mini_val", **settings})


def test_missing_results_and_missing_annotations_are_told(database, mini_val, write_database, tmp_path):
    results = ground_truth_results(mini_val)
    results.pop("scene-0103-1")
    with pytest.raises(ValueError, match="1 missing and 0 unknown ones, such as scene-0103-1"):
        evaluate_detections(results, database, "v1.0-mini", "mini_val")
    root = write_database(tmp_path / "d", version="v1.0-test", scenes={"scene-0077": 1}, annotations=False)
    with pytest.raises(ValueError, match="no annotations to evaluate test with; upload"):
        evaluate_detections({"scene-0077-0": []}, root, "v1.0-test", "test")


def test_custom_splits_are_evaluated(write_database, tmp_path):
    root = write_database(tmp_path / "d")
    (root / "v1.0-mini" / "splits.json").write_text('{"mine": ["scene-0916", "scene-0061"]}')
    infos = build_infos(root, "v1.0-mini", "mine", progress=False)
    metrics = evaluate_detections(ground_truth_results(infos), root, "v1.0-mini", "mine")
    assert metrics.num_samples == 3
    assert metrics.class_ap["car"] == pytest.approx(1)


def test_detections_of_a_tilted_ego_score_like_the_truth(database, mini_val):
    """Boxes in keyego, turned into results, are as good as the annotations."""
    dataset = KeyFrameDataset(mini_val, database, image_size=(32, 64), history=History(frames=0))
    results = {}
    for info in mini_val:
        boxes, labels = dataset.boxes(info)
        boxes = np.nan_to_num(boxes)
        results[info.token] = to_nuscenes_results(
            info.token, info.keyego2global, boxes, np.ones(len(boxes)), labels
        )
    metrics = evaluate_detections(results, database, "v1.0-mini", "mini_val")
    assert metrics.mAP == pytest.approx(0.3)
    for name in PRESENT:
        assert metrics.class_errors[name]["ATE"] < 1e-9


class TestDepth:
    def test_scores_by_hand(self):
        true = torch.tensor([10.0, 20, 40])
        predicted = torch.tensor([11.0, 20, 20])
        scores = depth_scores(depth_error_sums(predicted, true))
        assert scores["abs_rel"] == pytest.approx((0.1 + 0.5) / 3)
        assert scores["sq_rel"] == pytest.approx((0.1 + 10) / 3)
        assert scores["rmse"] == pytest.approx((401 / 3) ** 0.5)
        logs = np.log([1.1, 1, 0.5])
        assert scores["rmse_log"] == pytest.approx(np.sqrt((logs**2).mean()))
        assert scores["delta1"] == pytest.approx(2 / 3)
        close = depth_scores(depth_error_sums(torch.tensor([13.0, 17.0, 21.0]), torch.full((3,), 10.0)))
        assert [close[f"delta{power}"] for power in (1, 2, 3)] == pytest.approx([0, 1 / 3, 2 / 3])

    def test_quality_on_objects_and_by_range(self):
        true = torch.tensor([5.0, 10, 19, 70])
        predicted = torch.tensor([6.0, 10, 38, 70])
        on_object = torch.tensor([True, False, False, False])
        found = depth_quality(predicted, true, on_object, (0, 10, 20, 30))
        errors = {row: scores["abs_rel"] for row, scores in found.items()}
        assert errors == pytest.approx({"all": 1.2 / 4, "objects": 0.2, "0_10m": 0.2, "10_20m": 0.5})
        assert "objects" not in depth_quality(predicted, true)
        with pytest.raises(ValueError, match="at least two rising distances in metres, got"):
            depth_quality(predicted, true, ranges=(10, 5))

    def test_sums_add_up(self):
        generator = torch.Generator().manual_seed(0)
        true, predicted = torch.rand(2, 50, generator=generator) * 50 + 1
        parts = depth_error_sums(predicted[:20], true[:20]) + depth_error_sums(predicted[20:], true[20:])
        assert depth_scores(parts) == pytest.approx(depth_scores(depth_error_sums(predicted, true)))

    @pytest.mark.usefixtures("unchecked_shapes")
    def test_no_points_have_no_scores(self):
        assert depth_scores(depth_error_sums(torch.zeros(0), torch.zeros(0))) == {}
        with pytest.raises(ValueError, match="same shape"):
            depth_error_sums(torch.zeros(2), torch.zeros(3))

    def test_points_in_boxes(self):
        boxes = torch.tensor([[5.0, 0, 0, 4, 2, 2, np.pi / 2, 0, 0]])  # 4 m long, turned to the left
        points = torch.tensor([[5.0, 1.9, 0], [6.9, 0, 0], [5.9, 0, 0.9], [5, 0, 1.1]])
        assert in_boxes(points, boxes).tolist() == [True, False, True, False]
        assert not in_boxes(points, torch.zeros(0, 9)).any()

    def test_lidar_points_meet_their_cells_and_boxes(self, database, mini_val):
        """Every point is paired with its cell; a box around all points holds them, one elsewhere none."""
        dataset = KeyFrameDataset(
            mini_val, database, image_size=(32, 64), history=History(frames=0), training=True
        )
        sample = dataset[0]._replace(boxes=torch.tensor([[0.0, 0, 0, 200, 200, 200, 0.3, 0, 0]]))
        away = dataset[1]._replace(boxes=torch.tensor([[500.0, 0, 0, 9, 9, 9, 0.3, 0, 0]]))
        batch = collate([sample, away])
        cells = torch.arange(2 * 2 * 2 * 4, dtype=torch.float32).reshape(2, 2, 2, 4)
        predicted, lidar, on_object = lidar_points(batch, cells, (2.0, 15.0))
        known = (batch.lidar_depth >= 2) & (batch.lidar_depth < 15)
        assert len(lidar) == known.sum() > 20
        large = cells.repeat_interleave(16, 2).repeat_interleave(16, 3)
        assert torch.equal(predicted, large[known])
        assert on_object.sum() == known[0].sum()
        with pytest.raises(ValueError, match="lidar_depth=True"):
            lidar_points(batch._replace(lidar_depth=None), cells, (2.0, 15.0))
