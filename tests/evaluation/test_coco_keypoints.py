"""AP of keypoints: hand-checkable cases, and both backends against each other and against pycocotools' own reading."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.roles import Category, GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.coco import CocoEvaluator
from frcnn.evaluation.keypoints import COCO_SIGMAS
from frcnn.structures import Detections

BACKENDS = ["hotcoco", "pycocotools"]
CAT = 0
SQUARE = (100, 100, 150, 150)  # 2,500 square pixels: of medium size
HALF_A_PIXEL = np.array([0.5, 0.5, 0])
EYES = [[110.5, 120.5, 2], [140.5, 120.5, 1]]


def with_keypoints(dataset, keypoints):
    dataset.truth = replace(dataset.truth, keypoints=np.array(keypoints, dtype=np.float64))
    return dataset


def seen(detections: Detections, keypoints) -> Detections:
    return replace(detections, keypoints=torch.tensor(keypoints, dtype=torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
def test_distance_relative_to_size_and_sigma_decides(dataset_of, found, backend):
    """With sigma 0.05, a distance d on 2,500 square pixels has the similarity exp(-d^2 / (2 * 2500 * (2 * 0.05)^2)).

    That is exp(-25 / 50) = 0.607 for 5 pixels. Both eyes moved: found at 0.50, 0.55 and 0.60. One moved: (1 + 0.607) / 2 =
    0.803, found at seven of the ten thresholds.
    """
    dataset = with_keypoints(dataset_of([(1, CAT, SQUARE)], image_ids=[1]), [EYES])
    evaluator = CocoEvaluator(dataset, tasks=("keypoints",), oks_sigmas=(0.05, 0.05), backend=backend)
    both = seen(found((CAT, 0.9, (0, 0, 1, 1))), [[[115.5, 120.5, 0.3], [140.5, 115.5, 0.3]]])
    result = evaluator({1: both})
    assert result.metrics["keypoints/AP"] == pytest.approx(30)
    assert result.metrics["keypoints/APm"] == pytest.approx(30)
    assert result.metrics["keypoints/APl"] is None
    assert tuple(result.metrics) == evaluator.metric_names
    one = seen(found((CAT, 0.9, (0, 0, 1, 1))), [[[110.5, 120.5, 0.3], [140.5, 115.5, 0.3]]])
    assert evaluator({1: one}).metrics["keypoints/AP"] == pytest.approx(70)
    assert not evaluator({1: one}).notes


@pytest.mark.parametrize("backend", BACKENDS)
def test_keypoints_that_are_not_labelled_do_not_count(dataset_of, found, backend):
    """The second eye of the cat and the whole dog are not labelled: the eye may be anywhere, the dog need not be found."""
    dataset = dataset_of([(1, CAT, SQUARE), (1, 1, SQUARE)], image_ids=[1])
    with_keypoints(dataset, [[EYES[0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    result = CocoEvaluator(dataset, tasks=("keypoints",), oks_sigmas=(0.05, 0.05), backend=backend)(
        {1: seen(found((CAT, 0.9, SQUARE)), [[[110.5, 120.5, 0.9], [500, 400, 0.1]]])}
    )
    assert result.metrics["keypoints/AP"] == pytest.approx(100)
    assert result.per_class[1].metrics["AP"] is None


def test_which_sigmas_were_used_is_said(dataset_of, found):
    dataset = with_keypoints(dataset_of([(1, CAT, SQUARE)], image_ids=[1]), [EYES])
    perfect = {1: seen(found((CAT, 0.9, SQUARE)), [EYES])}
    (note,) = CocoEvaluator(dataset, tasks=("keypoints",))(perfect).notes
    assert "equal sigma of 0.067 for all 2" in note
    assert np.mean(COCO_SIGMAS) == pytest.approx(0.067, abs=5e-4)
    seventeen = with_keypoints(dataset_of([(1, CAT, SQUARE)], image_ids=[1]), np.full((1, 17, 3), 120.5))
    perfect = {1: seen(found((CAT, 0.9, SQUARE)), np.full((1, 17, 3), 120.5).tolist())}
    assert not CocoEvaluator(seventeen, tasks=("keypoints",))(perfect).notes


def test_what_is_missing_is_said_before_anything_runs(dataset_of, found):
    dataset = dataset_of([(1, CAT, SQUARE)], image_ids=[1])
    evaluator = CocoEvaluator(dataset, tasks=("keypoints",))
    with pytest.raises(UserError, match=r"asks for keypoints, but the model gives no keypoints: .*KeypointBranch"):
        evaluator.check(("masks",))
    with pytest.raises(UserError, match="the data set gives none; set keypoints: true in it"):
        evaluator.check(("keypoints",))
    evaluator = CocoEvaluator(with_keypoints(dataset, [EYES]), tasks=("keypoints",), oks_sigmas=(0.1,) * 3)
    with pytest.raises(UserError, match="oks_sigmas has 3 numbers, but objects have 2 keypoints"):
        evaluator.check(("keypoints",))
    evaluator = CocoEvaluator(dataset, tasks=("keypoints",))
    evaluator.check(("keypoints",))
    with pytest.raises(UserError, match="the detections have none; add a keypoint branch"):
        evaluator({1: found((CAT, 0.9, SQUARE))})
    with pytest.raises(UserError, match="the model gives 3 keypoints, and the objects of the data set have 2"):
        evaluator({1: seen(found((CAT, 0.9, SQUARE)), np.zeros((1, 3, 3)).tolist())})
    with pytest.raises(ValueError, match="oks_sigmas must be positive"):
        CocoEvaluator(dataset, oks_sigmas=(0.1, 0))


def test_nothing_found_is_zero_and_nothing_labelled_is_not_available(dataset_of, found):
    dataset = with_keypoints(dataset_of([(1, CAT, SQUARE)], image_ids=[1]), [EYES])
    assert CocoEvaluator(dataset, tasks=("keypoints",))({1: found()}).metrics["keypoints/AP"] == 0
    result = CocoEvaluator(with_keypoints(dataset, [np.zeros((2, 3))]), tasks=("keypoints",))({1: found()})
    assert set(result.metrics.values()) == {None}
    assert any("not one keypoint of the data set is labelled" in note for note in result.notes)


@st.composite
def problems(draw):
    """Objects with 17 or 3 keypoints, some or none of them labelled, crowds, equal scores, more than 20 detections."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m, d, num_keypoints = draw(st.integers(1, 3)), draw(st.integers(0, 10)), draw(st.integers(0, 60)), 17
    num_keypoints = draw(st.sampled_from([3, 17]))
    corner, side = rng.integers(0, 200, (m, 2)), rng.integers(1, 200, (m, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(float)
    points = np.zeros((m, num_keypoints, 3))
    points[..., :2] = corner[:, None] + rng.integers(0, 100, (m, num_keypoints, 2)) / 100 * side[:, None] + 0.5
    points[..., 2] = rng.integers(0, 3, (m, num_keypoints)) * (rng.random((m, 1)) < 0.8)
    points[..., :2] *= points[..., 2:] > 0
    truth = GroundTruth(
        categories=[Category(1, "person"), Category(7, "horse")],
        image_ids=rng.permutation(n * 2)[:n],
        image_sizes=np.full((n, 2), 400),
        image_index=np.sort(rng.integers(0, n, m)),
        classes=rng.integers(0, 2, m),
        boxes=boxes,
        areas=side.prod(axis=1) * rng.uniform(0.2, 1, m),
        iscrowd=rng.random(m) < draw(st.sampled_from([0.0, 0.3])),
        keypoints=points,
    )
    found = rng.uniform(0, 300, (d, num_keypoints, 3))
    if m:
        near = points[rng.integers(0, m, d)] + rng.normal(0, 4, (d, num_keypoints, 3))
        found = np.where(rng.random((d, 1, 1)) < 0.8, near, found)
    scores, image = np.round(rng.random(d), draw(st.sampled_from([1, 8]))), rng.integers(0, n, d)
    detections = {}
    for i in range(n):
        mine = np.flatnonzero(image == i)
        detections[int(truth.image_ids[i])] = Detections(
            boxes=torch.zeros(len(mine), 4),
            scores=torch.from_numpy(scores[mine]).float(),
            classes=torch.from_numpy(rng.integers(0, 2, len(mine))),
            index=torch.arange(len(mine)),
            keypoints=torch.from_numpy(found[mine]).float(),
        )
    return truth, detections


@settings(max_examples=40, deadline=None)
@given(problems())
def test_both_backends_give_the_same_numbers_to_the_last_digit(in_memory, problem):
    truth, detections = problem
    fast, reference = (
        CocoEvaluator(in_memory(truth), tasks=("keypoints",), backend=backend)(detections) for backend in BACKENDS
    )
    assert fast == reference


def test_equal_to_pycocotools_own_reading_of_files(in_memory):
    """Files hold the pixels that points lie in; ours are half a pixel further, in the coordinates of boxes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    m, areas = 30, rng.uniform(1000, 40000, 30)
    points = np.concatenate([rng.integers(0, 300, (m, 17, 2)), rng.integers(0, 3, (m, 17, 1))], axis=2).astype(float)
    moved = points + rng.normal(0, 5, points.shape)
    scores = rng.random(m)
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i + 1, "height": 400, "width": 400} for i in range(m)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i + 1,
                "category_id": 1,
                "bbox": [0, 0, 9, 9],
                "area": areas[i],
                "iscrowd": 0,
                "keypoints": points[i].ravel().tolist(),
                "num_keypoints": int((points[i, :, 2] > 0).sum()),
            }
            for i in range(m)
        ],
    }
    coco.createIndex()
    results = [
        {"image_id": i + 1, "category_id": 1, "keypoints": moved[i].ravel().tolist(), "score": scores[i]}
        for i in range(m)
    ]
    evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    truth = GroundTruth(
        categories=[Category(1, "person")],
        image_ids=np.arange(1, m + 1),
        image_sizes=np.full((m, 2), 400),
        image_index=np.arange(m),
        classes=np.zeros(m, np.int64),
        boxes=np.tile([0.0, 0.0, 9.0, 9.0], (m, 1)),
        areas=areas,
        iscrowd=np.zeros(m, bool),
        keypoints=points + HALF_A_PIXEL,
    )
    detections = {
        i + 1: Detections(
            boxes=torch.zeros(1, 4),
            scores=torch.tensor(scores[i : i + 1]),
            classes=torch.zeros(1, dtype=torch.int64),
            index=torch.zeros(1, dtype=torch.int64),
            keypoints=torch.from_numpy(moved[i : i + 1] + HALF_A_PIXEL),
        )
        for i in range(m)
    }
    metrics = CocoEvaluator(in_memory(truth), tasks=("keypoints",))(detections).metrics
    assert 5 < metrics["keypoints/AP"] < 95
    np.testing.assert_allclose(list(metrics.values()), 100 * evaluation.stats, rtol=1e-12)
