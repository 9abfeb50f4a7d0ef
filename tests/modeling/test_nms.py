import pytest
import torch

from frcnn.modeling.nms import NMS
from frcnn.ops.nms import nms_per_class

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
SCORES = torch.tensor([0.5, 0.9, 0.7, 0.6])


def test_by_hand():
    # Box 0 overlaps box 1 by 0.9 and is of the same class; box 3 is of another class.
    index, scores = NMS(iou_threshold=0.5)(BOXES, SCORES, torch.tensor([0, 0, 0, 1]))
    assert index.tolist() == [1, 2, 3]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.7, 0.6]))


def test_no_boxes():
    index, scores = NMS(iou_threshold=0.5)(BOXES[:0], SCORES[:0], torch.zeros(0, dtype=torch.int64))
    assert index.shape == scores.shape == (0,)


def test_threshold_is_checked():
    with pytest.raises(ValueError, match=r"iou_threshold must be in \(0, 1\], got 50"):
        NMS(iou_threshold=50)


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
