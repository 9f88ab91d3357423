"""The fast engine against the devkit, on random boxes of every class."""

import json

import numpy as np
import pytest

from bev_data.nuscenes.splits import split_tokens
from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.scores.official import evaluate_detections

CATEGORIES = {
    "vehicle.car": "vehicle.moving",
    "vehicle.truck": "vehicle.parked",
    "vehicle.construction": "vehicle.parked",
    "vehicle.bus.bendy": "vehicle.stopped",
    "vehicle.trailer": "",
    "movable_object.barrier": "",
    "vehicle.motorcycle": "cycle.with_rider",
    "vehicle.bicycle": "cycle.without_rider",
    "human.pedestrian.adult": "pedestrian.moving",
    "movable_object.trafficcone": "",
    "static_object.bicycle_rack": "",
    "animal": "",
}
SCENES = {"scene-0103": 5, "scene-0916": 3}
VERSION, SPLIT = "v1.0-mini", "mini_val"


def turned(yaw):
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def annotation(rng, sample, instance, number, last):
    category = list(CATEGORIES)[instance % len(CATEGORIES)]
    rack = category == "static_object.bicycle_rack"
    # Some cycles stand in the rack, which turns with them.
    spread = 3 if rack or "cycle" in category else 45
    attribute = CATEGORIES[category]
    around = {"prev": f"{instance}-{number - 1}" if number else "", "next": f"{instance}-{number + 1}"}
    return {
        "token": f"{instance}-{number}",
        "sample_token": sample,
        "instance_token": str(instance),
        "visibility_token": "4",
        "attribute_tokens": [attribute] if attribute and rng.random() > 0.1 else [],
        "translation": [*(np.array([104.0, 201]) + rng.uniform(-spread, spread, 2)).tolist(), 0.8],
        "size": [2.0, 8.0, 3.0] if rack else rng.uniform(0.5, 3, 3).tolist(),
        "rotation": turned(rng.uniform(0, 6)),
        **around,
        "next": "" if last else around["next"],
        "num_lidar_pts": int(rng.integers(0, 4)),
        "num_radar_pts": 0,
    }


@pytest.fixture(scope="module")
def root(write_database, tmp_path_factory):
    """A database with some fifty random boxes in each of eight key frames."""
    root = write_database(tmp_path_factory.mktemp("fast") / "d", scenes=SCENES, annotations=False)
    rng = np.random.default_rng(4)
    samples = [[f"{scene}-{i}" for i in range(frames)] for scene, frames in SCENES.items()]
    rows, instances = [], []
    for scene in samples:
        for instance in range(len(instances), len(instances) + 50):
            rows += [
                annotation(rng, sample, instance, number, sample == scene[-1])
                for number, sample in enumerate(scene)
            ]
            category = list(CATEGORIES)[instance % len(CATEGORIES)]
            ends = {"first_annotation_token": f"{instance}-0", "last_annotation_token": rows[-1]["token"]}
            instances.append(
                {
                    "token": str(instance),
                    "category_token": category,
                    "nbr_annotations": len(scene),
                    **ends,
                }
            )
    names = {name: [{"token": name, "name": name, "description": ""}] for name in CATEGORIES}
    attributes = sorted(set(CATEGORIES.values()) - {""})
    tables = {
        "sample_annotation": rows,
        "instance": instances,
        "category": [row for group in names.values() for row in group],
        "attribute": [{"token": name, "name": name, "description": ""} for name in attributes],
    }
    for name, content in tables.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def results(root):
    """Detections near true boxes and elsewhere; many share a score."""
    rng = np.random.default_rng(5)
    rows = json.loads((root / VERSION / "sample_annotation.json").read_text())
    names = dict(zip(CATEGORIES, CLASSES[:10], strict=False))
    found = {token: [] for token in split_tokens(root, VERSION, SPLIT)}
    for row in rows * 3:
        category = list(CATEGORIES)[int(row["instance_token"]) % len(CATEGORIES)]
        name = names.get(category, "bicycle")
        if rng.random() < 0.3:
            continue
        shift = rng.normal(0, 0.8, 3) if rng.random() < 0.7 else rng.uniform(-20, 20, 3)
        found[row["sample_token"]].append(
            {
                "sample_token": row["sample_token"],
                "translation": (np.array(row["translation"]) + shift).tolist(),
                "size": (np.array(row["size"]) * rng.uniform(0.7, 1.4, 3)).tolist(),
                "rotation": (np.array(row["rotation"]) * 1.7 + rng.normal(0, 0.2, 4)).tolist(),
                "velocity": rng.normal(0, 2, 2).tolist(),
                "detection_name": name,
                "detection_score": round(float(rng.random()), 2),
                "attribute_name": CATEGORIES[category] if rng.random() < 0.6 else "",
            }
        )
    return found


def same(fast, devkit):
    assert fast.num_samples == devkit.num_samples
    assert fast.class_range == devkit.class_range
    assert fast.summary() == pytest.approx(devkit.summary(), abs=1e-9)
    for name, errors in devkit.class_errors.items():
        assert fast.class_errors[name] == pytest.approx(errors, abs=1e-9, nan_ok=True)


def both(results, root, **settings):
    fast, devkit = (
        evaluate_detections(results, root, VERSION, SPLIT, engine=engine, **settings)
        for engine in ("fast", "devkit")
    )
    same(fast, devkit)
    return devkit


def test_all_samples(results, root):
    scores = both(results, root)
    assert 0.05 < scores.mAP < 0.9
    assert all(0 < ap < 1 for ap in scores.class_ap.values())
    assert 0 < scores.mAAE < 1


def test_subsets_and_ranges(results, root):
    tokens = list(results)
    whole = both(results, root)
    assert both(results, root, tokens=tokens[::3]).num_samples == 3
    assert both(results, root, tokens=tokens[::-1]).mAP == pytest.approx(whole.mAP, abs=0.02)
    near = both(results, root, class_range=12.5)
    assert near.mAP != whole.mAP
    both(results, root, class_range={"car": 9, "barrier": 4})


def test_cycles_in_racks_do_not_count(results, root):
    """Without racks other boxes count, so that the comparison above speaks of racks too."""
    rows = json.loads((root / VERSION / "sample_annotation.json").read_text())
    racks = [row for row in rows if (int(row["instance_token"]) % len(CATEGORIES)) == 10]
    assert len(racks) > 20
    in_racks = 0
    for rack in racks:
        yaw = 2 * np.arctan2(rack["rotation"][3], rack["rotation"][0])
        axes = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        for entry in results[rack["sample_token"]]:
            offset = np.subtract(entry["translation"], rack["translation"])
            inside = (np.abs(axes @ offset[:2]) <= [4, 1]).all() and abs(offset[2]) <= 1.5
            in_racks += inside and entry["detection_name"] in ("bicycle", "motorcycle")
    assert in_racks > 10


def test_perfect_poor_and_no_detections(results, root):
    none = {token: [] for token in results}
    assert both(none, root).NDS == 0
    one_class = {t: [e for e in v if e["detection_name"] == "bus"] for t, v in results.items()}
    assert both(one_class, root).class_ap["car"] == 0
    weak = {t: [{**e, "detection_score": 0.0} for e in v] for t, v in results.items()}
    both(weak, root)


def test_the_question_is_checked_in_the_same_words(results, root):
    for engine in ("fast", "devkit"):
        with pytest.raises(ValueError, match=f"samples of the split {SPLIT}, got .*nowhere"):
            evaluate_detections(results, root, VERSION, SPLIT, tokens=["nowhere"], engine=engine)


@pytest.mark.usefixtures("unchecked_shapes")
def test_unknown_engines_are_refused(results, root):
    with pytest.raises(ValueError, match="engine must be 'devkit' or 'fast', got 'slow'"):
        evaluate_detections(results, root, VERSION, SPLIT, engine="slow")


def test_splits_without_annotations(write_database, tmp_path):
    root = write_database(tmp_path / "d", version="v1.0-test", scenes={"scene-0077": 1}, annotations=False)
    with pytest.raises(ValueError, match="no annotations to evaluate test with; upload"):
        evaluate_detections({"scene-0077-0": []}, root, "v1.0-test", "test", engine="fast")
