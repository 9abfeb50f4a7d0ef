from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.roles import Category, GroundTruth
from frcnn.evaluation.proposals import ProposalEvaluator
from frcnn.structures import Detections

BACKENDS = ["hotcoco", "pycocotools"]
CAT, DOG = 0, 1
SMALL, MEDIUM, LARGE = (0, 0, 10, 10), (100, 100, 150, 150), (200, 200, 400, 400)


@pytest.mark.parametrize("backend", BACKENDS)
def test_objects_are_found_whatever_their_class_and_the_best_boxes_count(dataset_of, found, backend):
    """Three dogs; boxes, all of class 0, best first: the large one, the medium one with IoU 0.8, the small one.

    With one box, a third is found at all IoU: AR is 33.3. With two, the medium one is found at seven of ten thresholds:
    (1 + 0.7) / 3. With three: (1 + 0.7 + 1) / 3 = 0.9.
    """
    dataset = dataset_of([(1, DOG, SMALL), (1, DOG, MEDIUM), (1, DOG, LARGE)], image_ids=[1])
    boxes = found((CAT, 0.9, LARGE), (CAT, 0.8, (100, 100, 150, 140)), (CAT, 0.7, SMALL))
    evaluator = ProposalEvaluator(dataset, limits=(1, 2, 1000), backend=backend)
    result = evaluator({1: boxes})
    assert result.metrics["box_proposals/AR@1"] == pytest.approx(100 / 3)
    assert result.metrics["box_proposals/AR@2"] == pytest.approx(170 / 3)
    assert result.metrics["box_proposals/AR@1000"] == pytest.approx(90)
    by_size = [result.metrics[f"box_proposals/AR{size}@2"] for size in "sml"]
    assert by_size == pytest.approx([0, 70, 100])
    assert tuple(result.metrics) == evaluator.metric_names
    assert not result.notes and not result.per_class
    assert result.table().startswith("box_proposals    AR@1   ARs@1")


def test_recall_of_zero_has_a_reason_that_does_not_speak_of_classes(dataset_of, found):
    dataset = dataset_of([(1, DOG, MEDIUM)], image_ids=[1])
    result = ProposalEvaluator(dataset)({1: found((CAT, 0.9, (300, 300, 301, 301)))}, weights_loaded=False)
    assert result.metrics["box_proposals/AR@1000"] == 0
    assert result.metrics["box_proposals/ARs@100"] is None
    assert "no weights were loaded" in result.notes[0]
    assert "classes" not in " ".join(result.notes)


def test_options_are_checked(dataset_of):
    for limits in ((), (0, 10), (100, 10), (10, 10)):
        with pytest.raises(ValueError, match="limits must be ascending numbers of at least 1"):
            ProposalEvaluator(dataset_of([]), limits=limits)
    with pytest.raises(ValueError, match="backend must be"):
        ProposalEvaluator(dataset_of([]), backend="fast")


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m, d = draw(st.integers(1, 3)), draw(st.integers(0, 20)), draw(st.integers(0, 300))

    def boxes(count: int) -> np.ndarray:
        corner, size = rng.integers(0, 30, (count, 2)) * 5.0, rng.integers(1, 30, (count, 2)) * 5.0
        return np.concatenate([corner, corner + size], axis=1)

    gt_boxes = boxes(m)
    truth = GroundTruth(
        categories=[Category(k, f"class {k}") for k in range(3)],
        image_ids=np.arange(n),
        image_sizes=np.full((n, 2), 300),
        image_index=np.sort(rng.integers(0, n, m)),
        classes=rng.integers(0, 3, m),
        boxes=gt_boxes,
        areas=(gt_boxes[:, 2] - gt_boxes[:, 0]) * (gt_boxes[:, 3] - gt_boxes[:, 1]),
        iscrowd=rng.random(m) < draw(st.sampled_from([0.0, 0.3])),
    )
    image, scores, found = rng.integers(0, n, d), np.round(rng.random(d), 2), boxes(d)
    classes = np.zeros(d, int) if draw(st.booleans()) else rng.integers(0, 3, d)
    return truth, {
        i: Detections(
            boxes=torch.from_numpy(found[image == i]),
            scores=torch.from_numpy(scores[image == i]),
            classes=torch.from_numpy(classes[image == i]),
            index=torch.arange(int((image == i).sum())),
        )
        for i in range(n)
    }


@settings(max_examples=30, deadline=None)
@given(problems())
def test_both_backends_give_the_same_numbers_to_the_last_digit(in_memory, problem):
    truth, detections = problem
    fast, reference = (
        ProposalEvaluator(in_memory(truth), limits=(10, 100, 1000), backend=backend)(detections) for backend in BACKENDS
    )
    assert fast == reference
