from __future__ import annotations

import numpy as np
import pytest
import torch

from frcnn.data.roles import Category, GroundTruth
from frcnn.evaluation.coco import CocoEvaluator
from frcnn.evaluation.diagnosis import diagnose
from frcnn.structures import Detections

SIZES = [(480, 640), (375, 500), (800, 600), (640, 640)]


@pytest.fixture(scope="module")
def truth() -> GroundTruth:
    """20 images of four sizes with six objects each, of three classes."""
    rng = np.random.default_rng(0)
    sizes = np.array(SIZES * 5)
    image_index = np.repeat(np.arange(20), 6)
    wh = sizes[image_index][:, ::-1]
    corner, extent = rng.uniform(0.05, 0.6, (120, 2)) * wh, rng.uniform(0.1, 0.35, (120, 2)) * wh
    return GroundTruth(
        categories=[Category(1, "RBC"), Category(2, "WBC"), Category(3, "Platelets")],
        image_ids=np.arange(100, 120),
        image_sizes=sizes,
        image_index=image_index,
        classes=rng.integers(0, 3, 120),
        boxes=np.concatenate([corner, corner + extent], axis=1),
        areas=extent.prod(axis=1),
        iscrowd=np.zeros(120, dtype=bool),
    )


def perfect(truth: GroundTruth, change=lambda boxes, size: boxes, classes=lambda k: k, ids=lambda i: i, score=None):
    """Every object found exactly, with one thing changed."""
    rng = np.random.default_rng(1)
    detections = {}
    for i, image_id in enumerate(truth.image_ids.tolist()):
        mine = truth.image_index == i
        boxes = torch.from_numpy(truth.boxes[mine]).float()
        scores = torch.from_numpy(rng.uniform(0.3, 1, len(boxes))).float() if score is None else score(rng, len(boxes))
        detections[ids(image_id)] = Detections(
            boxes=change(boxes, tuple(truth.image_sizes[i].tolist())),
            scores=torch.as_tensor(scores, dtype=torch.float32),
            classes=classes(torch.from_numpy(truth.classes[mine])),
            index=torch.arange(len(boxes)),
        )
    return detections


def to_xywh(boxes, _):
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


def to_cxcywh(boxes, _):
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)


def normalised(boxes, size):
    return boxes / boxes.new_tensor([size[1], size[0], size[1], size[0]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (to_xywh, "the boxes look like x, y, width, height: read so, 100%"),
        (to_cxcywh, "the boxes look like centre x, centre y, width, height: read so, 100%"),
        (lambda boxes, _: boxes[:, [1, 0, 3, 2]], "the boxes look like y1, x1, y2, x2"),
        (normalised, "the boxes look like fractions of the image's width and height: read so, 100%"),
        (lambda boxes, _: boxes * 2, "the boxes are about 2.0 times too large"),
        (lambda boxes, _: boxes / 3, "the boxes are about 3.0 times too small"),
        (lambda boxes, size: boxes * 800 / min(size), "the boxes fit images whose shorter side is about"),
        (lambda boxes, _: boxes + 5000, "100% of the boxes lie wholly outside their image"),
        (lambda boxes, _: boxes[:, [2, 3, 0, 1]], "100% of the boxes have no width or height"),
    ],
)
def test_misread_boxes_are_recognised(truth, change, reason):
    notes = diagnose(truth, perfect(truth, change))
    assert reason in notes[0]
    assert len(notes) == 1


def test_network_scale_names_the_side(truth):
    (note,) = diagnose(truth, perfect(truth, lambda boxes, size: boxes * 800 / min(size)))
    side = int(note.split("shorter side is about ")[1].split(" px")[0])
    assert 720 <= side <= 880


def test_disjoint_image_ids(truth):
    (note,) = diagnose(truth, perfect(truth, ids=lambda i: i + 1000))
    assert "(1100..1119) is one of the data set's (100..119)" in note


def test_disjoint_and_shuffled_classes(truth):
    (note,) = diagnose(truth, perfect(truth, classes=lambda k: k + 3))
    assert "the detections are of class 3, class 4, class 5 and the objects of RBC, WBC, Platelets" in note
    (note,) = diagnose(truth, perfect(truth, classes=lambda k: (k + 1) % 3))
    assert "100% of the objects have a box on them, but of another class (most often" in note


def test_no_detections_and_nan(truth):
    assert "there are no detections in any of the 20 images" in diagnose(truth, {})[0]
    nan = perfect(truth, lambda boxes, _: boxes * float("nan"))
    assert diagnose(truth, nan) == ["all 120 detections hold NaN or infinite numbers: the weights have diverged"]


def _misplaced(boxes, size):
    height, width = size
    return torch.tensor([0.0, 0.0, width, height]).expand(len(boxes), 4)


def test_scores_of_an_untrained_detector(truth):
    chance = perfect(truth, _misplaced, score=lambda rng, n: 0.25 + rng.uniform(-0.002, 0.002, n))
    assert "(chance among 3 classes and background is 0.250)" in diagnose(truth, chance)[0]
    assert diagnose(truth, chance)[0].endswith("were weights loaded?")
    assert diagnose(truth, chance, weights_loaded=False)[0].startswith("no weights were loaded")
    assert "were weights loaded?" not in "".join(diagnose(truth, chance, weights_loaded=True))


def test_an_untrained_detector_gets_one_note(truth):
    """Its boxes happen to fit another scale: chance, which is not told."""
    chance = perfect(truth, lambda boxes, _: boxes * 2, score=lambda rng, n: 0.25 + rng.uniform(-0.002, 0.002, n))
    assert len(diagnose(truth, chance, weights_loaded=True)) == 1
    assert len(diagnose(truth, chance, weights_loaded=False)) == 1


def test_boxes_that_all_have_one_high_score_are_still_looked_at(truth):
    (note,) = diagnose(truth, perfect(truth, to_xywh, score=lambda rng, n: np.ones(n)))
    assert "the boxes look like x, y, width, height" in note


def test_low_scores(truth):
    low = perfect(truth, _misplaced, score=lambda rng, n: rng.uniform(0.01, 0.09, n))
    assert diagnose(truth, low)[0].startswith("all scores are low, the highest of 120 is 0.0")


def test_detections_only_where_nothing_is(truth, dataset_of, found):
    dataset = dataset_of([(1, 0, (10, 10, 50, 50))])
    detections = {2: found((0, 0.9, (10, 10, 50, 50)))}
    assert diagnose(dataset.ground_truth(), detections) == ["no image that holds an object has a detection"]


def test_there_is_always_an_answer(truth):
    """Boxes in wrong places with good scores have no cause that could be named."""
    assert diagnose(truth, perfect(truth, _misplaced))[0].startswith("no single cause found")


class _Data:
    def __init__(self, truth: GroundTruth) -> None:
        self.truth = truth

    def ground_truth(self) -> GroundTruth:
        return self.truth


def test_the_evaluator_explains_an_ap_of_zero_and_only_that(truth):
    evaluator = CocoEvaluator(_Data(truth))
    assert evaluator(perfect(truth)).notes == []
    result = evaluator(perfect(truth, to_xywh), weights_loaded=True)
    assert result.metrics["bbox/AP"] < 0.1
    assert "x, y, width, height" in result.notes[0]
    assert "note: the boxes look like x, y, width, height" in result.table()
