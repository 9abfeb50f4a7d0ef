from dataclasses import replace
from functools import partial

import pytest
import torch

from frcnn.errors import UserError
from frcnn.modeling.precomputed_proposals import PrecomputedProposals
from frcnn.modeling.proposals import TrainTest
from frcnn.structures import Batch


def batch(*proposals_per_image):
    sizes = [(40, 60)] * len(proposals_per_image)
    proposals = [torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) for boxes in proposals_per_image]
    return Batch(torch.zeros(len(sizes), 3, 64, 64), sizes, sizes, list(range(len(sizes))), proposals=proposals)


def test_proposals_are_clipped_and_those_without_area_dropped():
    given = batch([[0, 0, 10, 10], [70, 0, 80, 10], [50, 30, 100, 100], [5, 5, 5, 9]], [])
    (first, second), losses = PrecomputedProposals({}, top_n=TrainTest(10, 10))({}, given)
    assert losses == {}
    assert first.boxes.tolist() == [[0, 0, 10, 10], [50, 30, 60, 40]]
    assert first.index.tolist() == [0, 2]
    assert first.objectness.tolist() == [0, 0]
    assert first.level.tolist() == [0, 0]
    assert second.boxes.shape == (0, 4)


def test_the_first_are_taken():
    given = batch([[0, 0, 10 + i, 10] for i in range(5)])
    generator = PrecomputedProposals({}, top_n=TrainTest(train=3, test=2))
    assert generator({}, given)[0][0].index.tolist() == [0, 1, 2]
    assert generator.eval()({}, given)[0][0].index.tolist() == [0, 1]


def test_fast_rcnn_trains_and_detects(tiny_detector, tiny_batch):
    detector = tiny_detector(
        "standard", "random", proposal_generator=partial(PrecomputedProposals, top_n=TrainTest(5, 5))
    )
    proposals = [torch.tensor([[18.0, 12.0, 78.0, 62.0], [0.0, 0.0, 30.0, 30.0]]), torch.zeros(0, 4)]
    losses = detector(replace(tiny_batch, proposals=proposals)).losses
    assert {name for name in losses if name.startswith("loss")} == {"loss_classifier", "loss_box_reg"}
    assert losses["roi_heads/num_positive"] == 1  # one proposal and the object itself, over two images
    assert len(detector.eval()(replace(tiny_batch, proposals=proposals, targets=None)).detections) == 2


def test_images_without_proposals_are_told_where_to_get_them():
    given = Batch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 64)], [0])
    with pytest.raises(UserError, match="the images come without any: give the data set the file that has them"):
        PrecomputedProposals({}, top_n=TrainTest(10, 10))({}, given)
