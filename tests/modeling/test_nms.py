import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.modeling.nms import NMS, SoftNMS
from frcnn.ops.boxes import box_iou
from frcnn.ops.nms import nms_per_class

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
SCORES = torch.tensor([0.5, 0.9, 0.7, 0.6])


def test_by_hand():
    # Box 0 overlaps box 1 by 0.9 and is of the same class; box 3 is of another class.
    index, scores = NMS(iou_threshold=0.5)(BOXES, SCORES, torch.tensor([0, 0, 0, 1]))
    assert index.tolist() == [1, 2, 3]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.7, 0.6]))


def test_classes_may_suppress_each_other():
    index, _ = NMS(iou_threshold=0.5, class_agnostic=True)(BOXES, SCORES, torch.tensor([0, 0, 0, 1]))
    assert index.tolist() == [1, 2]


# Three boxes of one class: the best, one that overlaps it by 0.8, and one that touches neither.
THREE = torch.tensor([[0.0, 0.0, 10.0, 8.0], [20.0, 0.0, 30.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
THREE_SCORES = torch.tensor([0.5, 0.4, 0.9])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "linear"}, 0.5 * (1 - 0.8)),
        ({"method": "linear", "iou_threshold": 0.85}, 0.5),
        ({"method": "gaussian"}, 0.5 * math.exp(-0.64 / 0.5)),
        ({"method": "gaussian", "sigma": 0.1}, 0.5 * math.exp(-6.4)),
    ],
)
def test_soft_by_hand(options, expected):
    index, scores = SoftNMS(min_score=1e-6, **options)(THREE, THREE_SCORES, torch.zeros(3, dtype=torch.int64))
    by_row = dict(zip(index.tolist(), scores.tolist(), strict=True))
    assert by_row == pytest.approx({2: 0.9, 1: 0.4, 0: expected})
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


def test_soft_drops_what_falls_below_the_least_score_and_keeps_classes_apart():
    soft = SoftNMS(method="linear", min_score=0.15)
    assert soft(THREE, THREE_SCORES, torch.zeros(3, dtype=torch.int64))[0].tolist() == [2, 1]
    other_class = torch.tensor([1, 0, 0])
    assert soft(THREE, THREE_SCORES, other_class)[0].tolist() == [2, 0, 1]
    agnostic = SoftNMS(method="linear", min_score=0.15, class_agnostic=True)
    assert agnostic(THREE, THREE_SCORES, other_class)[0].tolist() == [2, 1]


def test_soft_linear_takes_everything_from_a_duplicate():
    index, scores = SoftNMS(method="linear")(THREE[[2, 2, 2]], THREE_SCORES, torch.zeros(3, dtype=torch.int64))
    assert index.tolist() == [2]
    assert scores.tolist() == pytest.approx([0.9])


def naive_soft_nms(boxes, scores, classes, soft):
    """The pseudo-code of the paper, over all classes at once."""
    scores, left, taken = scores.clone(), set(range(len(boxes))), []
    while left:
        best = max(sorted(left), key=lambda i: scores[i].item())
        left.remove(best)
        if scores[best] < soft.min_score:
            break
        taken.append((best, scores[best].item()))
        for other in left:
            if classes[other] == classes[best]:
                scores[other] *= soft.decay(box_iou(boxes[best, None], boxes[other, None])[0, 0])
    return dict(taken)


@given(st.integers(0, 12), st.integers(0, 10**6), st.sampled_from(["linear", "gaussian"]))
@settings(deadline=None)
def test_soft_is_its_definition(num_boxes, seed, method):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_boxes, 2, generator=generator) * 10
    boxes = torch.cat((corners, corners + 4 + torch.rand(num_boxes, 2, generator=generator) * 8), dim=1)
    scores = torch.rand(num_boxes, generator=generator)
    classes = torch.randint(3, (num_boxes,), generator=generator) * 7
    soft = SoftNMS(method=method, min_score=0.01)
    index, left = soft(boxes, scores, classes)
    assert dict(zip(index.tolist(), left.tolist(), strict=True)) == pytest.approx(
        naive_soft_nms(boxes, scores, classes, soft), rel=1e-4
    )
    assert torch.equal(left, left.sort(descending=True).values)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_seldom_asks_whether_it_is_done_and_gives_the_same_to_the_last_bit(method, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(70, 2, generator=generator) * 30
    boxes = torch.cat((corners, corners + 4 + torch.rand(70, 2, generator=generator) * 20), dim=1)
    scores, one_class = torch.rand(70, generator=generator), torch.zeros(70, dtype=torch.int64)
    asked, ask = [], torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: asked.append(0) or ask(tensor))
    seldom = SoftNMS(method=method)(boxes, scores, one_class)
    assert len(asked) <= 3  # before steps 0, 32 and 64 of 70
    monkeypatch.setattr("frcnn.ops.nms.ASK_EVERY", 1)
    after_each_step = SoftNMS(method=method)(boxes, scores, one_class)
    assert len(asked) > 20
    assert all(torch.equal(*pair) for pair in zip(seldom, after_each_step, strict=True))


@pytest.mark.parametrize("nms", [NMS(iou_threshold=0.5), SoftNMS()])
def test_no_boxes(nms):
    index, scores = nms(BOXES[:0], SCORES[:0], torch.zeros(0, dtype=torch.int64))
    assert index.shape == scores.shape == (0,)


def test_threshold_is_checked():
    with pytest.raises(ValueError, match=r"iou_threshold must be in \(0, 1\], got 50"):
        NMS(iou_threshold=50)
    with pytest.raises(ValueError, match=r"iou_threshold must be in \(0, 1\], got 0"):
        SoftNMS(iou_threshold=0)
    with pytest.raises(ValueError, match="sigma must be above 0, got 0"):
        SoftNMS(sigma=0)
    with pytest.raises(ValueError, match=r"min_score must be in \(0, 1\], got 0"):
        SoftNMS(min_score=0)


@pytest.mark.parametrize("num_boxes", [0, 1, 300])
def test_the_exported_form_gives_the_same(num_boxes, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(num_boxes, 2, generator=generator) * 80
    boxes = torch.cat((corners, corners + 1 + torch.rand(num_boxes, 2, generator=generator) * 40), dim=1)
    scores = torch.rand(num_boxes, generator=generator)
    classes = torch.randint(3, (num_boxes,), generator=generator)
    eager = nms_per_class(boxes, scores, classes, 0.4)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(nms_per_class(boxes, scores, classes, 0.4), eager)
