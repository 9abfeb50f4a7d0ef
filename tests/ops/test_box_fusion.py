"""Weighted box fusion, by hand and against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.ops.box_fusion import weighted_box_fusion
from frcnn.ops.boxes import box_iou

# Two views of one object (IoU 0.8), and something that only the second sees.
BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [50.0, 50.0, 60.0, 60.0]])
SCORES = torch.tensor([0.6, 0.2, 0.9])
ONE_CLASS = torch.zeros(3, dtype=torch.int64)


def test_two_views_by_hand():
    # The mean weighs 3 : 1, so y2 is 9.5; the score is the mean of 0.6 and 0.2. One of two views saw the last: 0.9 / 2.
    fused = weighted_box_fusion(BOXES, SCORES, ONE_CLASS, num_views=2)
    torch.testing.assert_close(fused.boxes, torch.tensor([[50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 10.0, 9.5]]))
    torch.testing.assert_close(fused.scores, torch.tensor([0.45, 0.4]))
    assert fused.best.tolist() == [2, 0]
    assert fused.classes.tolist() == [0, 0]


def test_classes_and_far_boxes_stay_apart():
    fused = weighted_box_fusion(BOXES, SCORES, torch.tensor([0, 5, 0]), num_views=1)
    assert fused.best.tolist() == [2, 0, 1]
    assert fused.classes.tolist() == [0, 0, 5]
    torch.testing.assert_close(fused.boxes, BOXES[fused.best])
    assert len(weighted_box_fusion(BOXES, SCORES, ONE_CLASS, num_views=2, iou_threshold=0.8).boxes) == 3


def test_more_boxes_than_views_are_not_worth_more_than_their_mean():
    fused = weighted_box_fusion(BOXES[[0, 0, 0]], torch.tensor([0.9, 0.6, 0.3]), ONE_CLASS, num_views=2)
    torch.testing.assert_close(fused.scores, torch.tensor([0.6]))


def test_nothing_to_fuse():
    fused = weighted_box_fusion(BOXES[:0], SCORES[:0], ONE_CLASS[:0], num_views=3)
    assert fused.boxes.shape == (0, 4)
    assert len(fused.scores) == len(fused.classes) == len(fused.best) == 0
    with pytest.raises(ValueError, match="num_views must be at least 1, got 0"):
        weighted_box_fusion(BOXES, SCORES, ONE_CLASS, num_views=0)


def naive_fusion(boxes, scores, classes, num_views, iou_threshold):
    """The algorithm as the paper lists it, one box at a time."""
    clusters = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        best, closest = iou_threshold, None
        for cluster in clusters:
            if classes[cluster[0]] == classes[i]:
                weights = scores[cluster]
                mean = (boxes[cluster] * weights[:, None]).sum(0) / weights.sum()
                iou = box_iou(mean[None], boxes[i, None]).item()
                if iou > best:
                    best, closest = iou, cluster
        if closest is None:
            clusters.append([i])
        else:
            closest.append(i)
    fused = []
    for cluster in clusters:
        weights = scores[cluster]
        mean = (boxes[cluster] * weights[:, None]).sum(0) / weights.sum()
        score = weights.mean() * min(len(cluster), num_views) / num_views
        fused.append((cluster[0], score.item(), mean.tolist()))
    return sorted(fused)


@given(st.integers(0, 14), st.integers(1, 4), st.integers(0, 10**6))
@settings(deadline=None)
def test_it_is_its_definition(num_boxes, num_views, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_boxes, 2, generator=generator) * 6
    boxes = torch.cat((corners, corners + 6 + torch.rand(num_boxes, 2, generator=generator) * 6), dim=1)
    scores = 0.01 + 0.99 * torch.rand(num_boxes, generator=generator)
    classes = torch.randint(3, (num_boxes,), generator=generator)
    fused = weighted_box_fusion(boxes, scores, classes, num_views, iou_threshold=0.5)
    got = sorted(zip(fused.best.tolist(), fused.scores.tolist(), fused.boxes.tolist(), strict=True))
    expected = naive_fusion(boxes, scores, classes, num_views, 0.5)
    assert [best for best, *_ in got] == [best for best, *_ in expected]
    for (_, score, box), (_, wanted_score, wanted_box) in zip(got, expected, strict=True):
        assert score == pytest.approx(wanted_score, rel=1e-4)
        assert box == pytest.approx(wanted_box, rel=1e-4)
    assert torch.equal(fused.scores, fused.scores.sort(descending=True).values)
    assert torch.equal(fused.classes, classes[fused.best])
