import math

import pytest
import torch

from frcnn.modeling.nms import NMS
from frcnn.modeling.postprocess import Postprocess, SelectDetections
from frcnn.structures import ScoredBoxes


def make(**options):
    return SelectDetections(Postprocess(nms=NMS(iou_threshold=0.5), **options))


def test_by_hand():
    # Rows 0 and 1 are one object of class 0; row 1 is also class 1, where nothing competes; row 2 scores too little.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])[:, None].repeat(1, 2, 1)
    scores = torch.tensor([[0.7, 0.0], [0.9, 0.6], [0.05, 0.05]])
    detections = make()(ScoredBoxes(boxes, scores))
    torch.testing.assert_close(detections.scores, torch.tensor([0.9, 0.6]))
    assert detections.classes.tolist() == [0, 1]
    assert detections.index.tolist() == [1, 1]
    assert detections.boxes.tolist() == [[0, 0, 10, 9], [0, 0, 10, 9]]


def test_keeps_the_best_of_the_image():
    boxes = torch.arange(5.0)[:, None, None] * 20 + torch.tensor([0.0, 0, 10, 10])  # [5, 1, 4]
    scores = torch.tensor([[0.1], [0.5], [0.3], [0.4], [0.2]])
    detections = make(detections_per_image=2)(ScoredBoxes(boxes, scores))
    assert detections.index.tolist() == [1, 3]


def test_small_boxes_and_boxes_that_are_not_a_number():
    boxes = torch.tensor([[[0.0, 0, 0, 10]], [[0, 0, 0.01, 10]], [[math.nan, 0, 10, 10]]])
    scored = ScoredBoxes(boxes, torch.tensor([[0.9], [0.8], [0.7]]))
    assert make()(scored).index.tolist() == [0, 1]
    assert make(min_size=0.01)(scored).index.tolist() == [1]


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_found(rows):
    detections = make()(ScoredBoxes(torch.ones(rows, 4, 4), torch.zeros(rows, 4)))
    assert len(detections) == 0
    assert detections.boxes.shape == (0, 4)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match=r"score_thresh must be in \[0, 1\], got 5"):
        make(score_thresh=5)
    with pytest.raises(ValueError, match="detections_per_image must be at least 1, got 0"):
        make(detections_per_image=0)
