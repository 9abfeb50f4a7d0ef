from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.roles import Category, Dataset, GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.coco import CocoEvaluator
from frcnn.evaluation.roles import EVALUATORS
from frcnn.structures import Detections

BACKENDS = ["hotcoco", "pycocotools"]
CAT, DOG = 0, 1
SQUARE = (100, 100, 150, 150)  # 2,500 square pixels: of medium size


class Data(Dataset):
    def __init__(self, truth: GroundTruth) -> None:
        self.truth = truth

    def ground_truth(self) -> GroundTruth:
        return self.truth


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_of_two_found_exactly(dataset_of, found, backend):
    """Of two cats one is found exactly: precision is 1 at the 51 of 101 recalls from 0 to 0.5, so AP is 50.495."""
    dataset = dataset_of([(1, CAT, SQUARE), (2, CAT, SQUARE)])
    result = CocoEvaluator(dataset, backend=backend)({1: found((CAT, 0.9, SQUARE)), 2: found()})
    assert result.metrics["bbox/AP"] == pytest.approx(100 * 51 / 101)
    assert result.metrics["bbox/AP50"] == result.metrics["bbox/APm"] == result.metrics["bbox/AP"]
    assert result.metrics["bbox/AR@1"] == pytest.approx(50)
    assert result.metrics["bbox/APs"] is None
    assert result.metrics["bbox/APl"] is None
    cat, dog = result.per_class
    assert (cat.name, cat.num_objects, dog.name, dog.num_objects) == ("cat", 2, "dog", 0)
    assert cat.metrics["AP"] == result.metrics["bbox/AP"]
    assert dog.metrics["AP"] is None
    assert not result.notes


@pytest.mark.parametrize("backend", BACKENDS)
def test_iou_decides_which_thresholds_are_met(dataset_of, found, backend):
    """50x50 against 50x40 inside it is an IoU of 0.8: found at 0.50 .. 0.80, seven of the ten thresholds."""
    dataset = dataset_of([(1, CAT, SQUARE)], image_ids=[1])
    result = CocoEvaluator(dataset, backend=backend)({1: found((CAT, 0.9, (100, 100, 150, 140)))})
    assert result.metrics["bbox/AP"] == pytest.approx(70)
    assert result.metrics["bbox/AP75"] == pytest.approx(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_boxes_in_a_crowd_are_neither_right_nor_wrong(dataset_of, found, backend):
    dataset = dataset_of([(1, CAT, SQUARE), (1, CAT, (200, 200, 400, 400), "crowd")], image_ids=[1])
    in_crowd = [(CAT, 0.95, (200, 200, 260, 260)), (CAT, 0.94, (300, 300, 380, 380))]
    result = CocoEvaluator(dataset, backend=backend)({1: found(*in_crowd, (CAT, 0.9, SQUARE))})
    assert result.metrics["bbox/AP"] == pytest.approx(100)
    assert result.per_class[CAT].num_objects == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_image_ids_and_their_order_change_nothing(dataset_of, found, backend):
    """pycocotools alone takes an annotation of id 0 for unmatched; ids here are counted anew."""
    big = 2**53 - 1
    dataset = dataset_of([(0, CAT, SQUARE), (big, DOG, SQUARE), (-4, DOG, SQUARE)], image_ids=[big, 0, -4])
    detections = {i: found((k, 0.9, SQUARE)) for i, k in ((0, CAT), (-4, DOG), (big, DOG))}
    assert CocoEvaluator(dataset, backend=backend)(detections).metrics["bbox/AP"] == pytest.approx(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_is_zero_with_a_reason(dataset_of, found, backend):
    dataset = dataset_of([(1, CAT, SQUARE), (2, CAT, SQUARE)])
    for nothing in ({}, {1: found(), 2: found()}):
        result = CocoEvaluator(dataset, backend=backend)(nothing)
        assert result.metrics["bbox/AP"] == 0
        assert result.metrics["bbox/AR@100"] == 0
        assert result.metrics["bbox/APs"] is None
        assert any("no detections" in note for note in result.notes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_ground_truth_is_not_available_with_a_reason(dataset_of, found, backend):
    crowd = [(1, CAT, SQUARE, "crowd")]
    for objects, image_ids, reason in (([], [1], "no objects"), (crowd, [1], "only crowds"), ([], [], "no images")):
        detections = {i: found((CAT, 0.9, SQUARE)) for i in image_ids}
        result = CocoEvaluator(dataset_of(objects, image_ids=image_ids), backend=backend)(detections)
        assert set(result.metrics.values()) == {None}
        assert reason in result.notes[0]
        assert "n/a" in result.table()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_printed(dataset_of, found, backend, capfd):
    CocoEvaluator(dataset_of([(1, CAT, SQUARE)]), backend=backend)({1: found((CAT, 0.9, SQUARE))})
    assert capfd.readouterr() == ("", "")


def test_bad_detections_are_named(dataset_of, found):
    evaluator = CocoEvaluator(dataset_of([(1, CAT, SQUARE)]))
    with pytest.raises(UserError, match=r"1 of the 1 images.*image id 7.*ids of the data set: 1, 2"):
        evaluator({7: found((CAT, 0.9, SQUARE))})
    with pytest.raises(UserError, match=r"image 2 is of class 2, but the data set has 2 classes"):
        evaluator({2: found((2, 0.9, SQUARE))})
    result = evaluator({1: found((CAT, float("nan"), SQUARE), (CAT, 0.9, SQUARE)), 2: found()})
    assert result.metrics["bbox/AP"] == pytest.approx(100)
    assert result.notes == ["1 of 2 detections hold NaN or infinite numbers and were left out"]
    assert evaluator({1: found((CAT, 0.9, SQUARE))}).notes == ["1 of 2 images were not run; nothing is found in them"]


def test_bfloat16_detections_are_read(dataset_of, found):
    detections = found((CAT, 0.9, SQUARE))
    half = Detections(detections.boxes.bfloat16(), detections.scores.bfloat16(), detections.classes, detections.index)
    assert CocoEvaluator(dataset_of([(1, CAT, (100, 100, 150, 150))]))({1: half}).metrics["bbox/AP50"] == pytest.approx(
        100
    )


def test_pycocotools_takes_over_where_hotcoco_cannot_be_imported(dataset_of, found, monkeypatch):
    real_import = builtins.__import__

    def without_hotcoco(name, *args, **kwargs):
        if name == "hotcoco":
            raise ImportError("No module named 'hotcoco'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_hotcoco)
    result = CocoEvaluator(dataset_of([(1, CAT, SQUARE)], image_ids=[1]))({1: found((CAT, 0.9, SQUARE))})
    assert result.metrics["bbox/AP"] == pytest.approx(100)
    assert len(result.notes) == 1
    assert "pycocotools took its place" in result.notes[0]


def test_metric_names_are_the_keys_of_the_result(dataset_of):
    evaluator = CocoEvaluator(dataset_of([]))
    assert tuple(evaluator({}).metrics) == evaluator.metric_names


def test_backend_is_checked():
    assert EVALUATORS.components["CocoEvaluator"] is CocoEvaluator
    with pytest.raises(ValueError, match="backend must be hotcoco or pycocotools, got 'fast'"):
        CocoEvaluator(Dataset(), backend="fast")


@st.composite
def problems(draw):
    """Small data sets with crowds, empty images, classes without objects, equal scores, and boxes on a coarse grid."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, num_classes = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    m, d = draw(st.integers(0, 30)), draw(st.integers(0, 60))

    def boxes(count: int) -> np.ndarray:
        corner, size = rng.integers(0, 30, (count, 2)) * 5.0, rng.integers(1, 30, (count, 2)) * 5.0
        return np.concatenate([corner, corner + size], axis=1)

    gt_boxes = boxes(m)
    truth = GroundTruth(
        categories=[Category(k * 3, f"class {k}") for k in range(num_classes)],
        image_ids=rng.permutation(n * 2)[:n],
        image_sizes=np.full((n, 2), 300),
        image_index=np.sort(rng.integers(0, n, m)),
        classes=rng.integers(0, num_classes, m),
        boxes=gt_boxes,
        areas=(gt_boxes[:, 2] - gt_boxes[:, 0]) * (gt_boxes[:, 3] - gt_boxes[:, 1]) * rng.uniform(0.3, 1, m),
        iscrowd=rng.random(m) < draw(st.sampled_from([0.0, 0.3, 1.0])),
    )
    near = gt_boxes[rng.integers(0, m, d)] + rng.integers(-10, 10, (d, 4)) if m else boxes(d)
    all_boxes = np.where(rng.random((d, 1)) < 0.7, near, boxes(d))
    scores = np.round(rng.random(d), draw(st.sampled_from([1, 8])))
    detections = {}
    image = rng.integers(0, n, d)
    for i in rng.permutation(n)[: draw(st.integers(0, n))]:
        mine = np.flatnonzero(image == i)
        detections[int(truth.image_ids[i])] = Detections(
            boxes=torch.from_numpy(all_boxes[mine]).float(),
            scores=torch.from_numpy(scores[mine]).float(),
            classes=torch.from_numpy(rng.integers(0, num_classes, len(mine))),
            index=torch.arange(len(mine)),
        )
    return Data(truth), detections


@settings(max_examples=60, deadline=None)
@given(problems())
def test_both_backends_give_the_same_numbers_to_the_last_digit(problem):
    dataset, detections = problem
    fast, reference = (CocoEvaluator(dataset, backend=backend)(detections) for backend in BACKENDS)
    assert fast == reference


def _published_case(folder: Path) -> tuple[Data, dict[int, Detections]]:
    file = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    image_ids = [image["id"] for image in file["images"]]
    category_ids = sorted(category["id"] for category in file["categories"])
    names = {category["id"]: category["name"] for category in file["categories"]}
    objects = sorted(file["annotations"], key=lambda annotation: image_ids.index(annotation["image_id"]))
    truth = GroundTruth(
        categories=[Category(i, names[i]) for i in category_ids],
        image_ids=np.array(image_ids),
        image_sizes=np.array([(image["height"], image["width"]) for image in file["images"]]),
        image_index=np.array([image_ids.index(o["image_id"]) for o in objects]),
        classes=np.array([category_ids.index(o["category_id"]) for o in objects]),
        boxes=np.array([_xyxy(o["bbox"]) for o in objects]),
        areas=np.array([o["area"] for o in objects]),
        iscrowd=np.array([o["iscrowd"] for o in objects], dtype=bool),
    )
    detections = {}
    for image_id in image_ids:
        mine = [r for r in results if r["image_id"] == image_id]
        detections[image_id] = Detections(
            boxes=torch.tensor([_xyxy(r["bbox"]) for r in mine], dtype=torch.float64).reshape(-1, 4),
            scores=torch.tensor([r["score"] for r in mine], dtype=torch.float64),
            classes=torch.tensor([category_ids.index(r["category_id"]) for r in mine], dtype=torch.int64),
            index=torch.arange(len(mine)),
        )
    return Data(truth), detections


def _xyxy(bbox: list[float]) -> list[float]:
    x, y, w, h = bbox
    return [x, y, x + w, y + h]


def test_published_results_of_100_coco_images(coco_val2014_100):
    dataset, detections = _published_case(coco_val2014_100)
    fast, reference = (CocoEvaluator(dataset, backend=backend)(detections) for backend in BACKENDS)
    assert fast == reference
    published = [50.5, 69.7, 57.3, 58.6, 51.9, 50.1, 38.7, 59.4, 59.5, 64.0, 56.6, 56.4]
    assert [round(value, 1) for value in fast.metrics.values()] == published


def test_published_results_equal_pycocotools_own_reading_of_the_files(coco_val2014_100):
    """The whole way through our arrays, against pycocotools loading the two JSON files by itself."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = coco_val2014_100
    dataset, detections = _published_case(folder)
    coco = COCO(str(folder / "instances_val2014_100.json"))
    results = coco.loadRes(str(folder / "instances_val2014_fakebbox100_results.json"))
    evaluation = COCOeval(coco, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ours = list(CocoEvaluator(dataset)(detections).metrics.values())
    np.testing.assert_array_equal(np.array(ours), 100 * evaluation.stats)
