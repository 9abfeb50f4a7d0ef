from functools import partial

import pytest
import torch
from torch import nn

from frcnn.modeling.adaptive_conv import AdaptiveConv, adaptive_offsets
from frcnn.modeling.anchors import GridAnchorGenerator
from frcnn.modeling.cascade_rpn import CascadeRPN
from frcnn.modeling.losses import BinaryCrossEntropy, IoULoss, L1Loss
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.matchers.region import RegionMatcher
from frcnn.modeling.nms import NMS, SoftNMS
from frcnn.modeling.proposals import TrainTest
from frcnn.modeling.roles import Matcher
from frcnn.modeling.rpn_head import ConvRPNHead
from frcnn.modeling.samplers import BalancedPositiveNegativeSampler, OHEMSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, FeatureShape, Targets

SHAPES = {"p3": FeatureShape(6, 8), "p4": FeatureShape(6, 16)}


def build(**options):
    torch.manual_seed(0)
    defaults = {
        "in_features": ("p3", "p4"),
        "anchor_generator": partial(GridAnchorGenerator, sizes=((16.0,), (32.0,)), aspect_ratios=(1.0,)),
        "first_matcher": RegionMatcher(),
        "first_box_coder": BoxCoder((10.0, 10.0, 2.0, 2.0)),
        "first_box_loss": IoULoss(),
        "head": partial(ConvRPNHead, num_convs=0),
        "matcher": IoUMatcher(high_threshold=0.7, low_threshold=0.7, allow_low_quality_matches=True),
        "sampler": BalancedPositiveNegativeSampler(batch_size_per_image=16, positive_fraction=0.5),
        "box_coder": BoxCoder((20.0, 20.0, 10.0, 10.0)),
        "objectness_loss": BinaryCrossEntropy,
        "box_loss": IoULoss(),
        "nms": NMS(iou_threshold=0.8),
        "pre_nms_top_n": TrainTest(50, 40),
        "post_nms_top_n": TrainTest(30, 20),
    }
    return CascadeRPN(SHAPES, **(defaults | options))


def features(batch=2):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(batch, 6, 64 // s.stride, 64 // s.stride, generator=generator) for name, s in SHAPES.items()
    }


def make_batch(*boxes_per_image):
    targets = [
        Targets(torch.tensor(b, dtype=torch.float32).reshape(-1, 4), torch.full((len(b),), 3)) for b in boxes_per_image
    ]
    sizes = [(64, 64)] * len(targets)
    return Batch(torch.zeros(len(sizes), 3, 64, 64), sizes, sizes, list(range(len(sizes))), targets)


def test_soft_nms_ranks_by_probability():
    proposals, _ = build(nms=SoftNMS(min_score=1e-6)).eval()(features(), make_batch([], []))
    assert [len(found) for found in proposals] == [20, 20]  # nothing is dropped for an overlap


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss"))


def test_the_offsets_of_one_anchor_by_hand():
    # A location at pixel (32, 16) of a map of stride 8, its anchor moved to [24, 16, 72, 48]: centre (48, 32), 48 x 32 px.
    # In cells the location is (4, 2), the centre (6, 4), and the corners (3, 2) and (9, 6).
    anchors = torch.tensor([[24.0, 8.0, 40.0, 24.0]])
    offsets = adaptive_offsets(anchors, torch.tensor([[[24.0, 16.0, 72.0, 48.0]]]), 8)
    taps = offsets.reshape(3, 3, 2) + torch.tensor([[[2 + y, 4 + x] for x in (-1, 0, 1)] for y in (-1, 0, 1)])
    expected = [[[y, x] for x in (3.0, 6.0, 9.0)] for y in (2.0, 4.0, 6.0)]
    torch.testing.assert_close(taps, torch.tensor(expected))


def test_an_anchor_of_two_cells_leaves_a_plain_convolution():
    generator = GridAnchorGenerator([8], sizes=((16.0,),), aspect_ratios=(1.0,), offset=0.5)
    (anchors,) = generator([(5, 6)], (40, 48))
    conv = AdaptiveConv(3)
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    assert adaptive_offsets(anchors, anchors[None], 8).abs().max() == 0
    plain = nn.functional.conv2d(x, conv.weight, padding=1)
    torch.testing.assert_close(conv(x, anchors, anchors.expand(2, -1, -1), 8), plain, rtol=1e-4, atol=1e-6)


def test_a_moved_anchor_sees_what_it_covers():
    # The value of the map is its column, and only the tap in the middle counts: moved by 2 cells it reads 2 more.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    (anchors,) = GridAnchorGenerator([8], sizes=((16.0,),), aspect_ratios=(1.0,))([(8, 8)], (64, 64))
    conv = AdaptiveConv(1)
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1, 1] = 1.0
    moved = anchors[None] + torch.tensor([16.0, 0.0, 16.0, 0.0])
    assert conv(ramp, anchors, moved, 8)[0, 0, 3, :6].tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_positions_that_are_not_a_number_do_not_reach_the_kernel():
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    assert adaptive_offsets(anchors, torch.full((1, 1, 4), torch.nan), 8).tolist() == [[[0.0] * 18]]


def test_the_second_stage_starts_from_the_moved_anchors():
    seen = []

    class Watching(Matcher):
        def forward(self, candidates, targets):
            seen.append(torch.cat(list(candidates.boxes_per_level)))
            return IoUMatcher(high_threshold=0.7, low_threshold=0.3)(candidates, targets)

    rpn = build(matcher=Watching())
    nn.init.constant_(rpn.first_deltas.bias, 0.0)
    nn.init.zeros_(rpn.first_deltas.weight)
    rpn.first_deltas.bias.data[0] = 5.0  # half a width to the right, as the first coder's weight is 10
    rpn(features(), make_batch([[3, 3, 20, 20]], []))
    anchors = torch.cat(rpn.anchor_generator([(8, 8), (4, 4)], (64, 64)))
    width = anchors[:, 2] - anchors[:, 0]
    for moved in seen:
        torch.testing.assert_close(moved - anchors, torch.stack((width / 2, 0 * width, width / 2, 0 * width), dim=1))


def test_the_first_loss_by_hand():
    # Nothing is moved at first. Of the anchors of 16 px only the one on the object's centre (8, 8) is positive: the
    # object [0, 0, 16, 16] is that anchor moved by nothing, so the L1 loss is 0; one of half the height costs its log.
    rpn = build(first_box_loss=L1Loss(loss_weight=3))
    nn.init.zeros_(rpn.first_deltas.weight)
    _, losses = rpn(features(1), make_batch([[0, 0, 16, 16]]))
    assert losses["loss_rpn_first_box_reg"] == 0
    assert losses["rpn/num_first_positive"] == 1
    _, losses = rpn(features(1), make_batch([[0, 4, 16, 12]]))
    assert losses["loss_rpn_first_box_reg"].item() == pytest.approx(3 * 2 * torch.log(torch.tensor(2.0)).item())


@pytest.mark.parametrize("boxes", [[[[3, 3, 20, 20], [30, 10, 62, 50]], []], [[], []]])
def test_every_parameter_has_a_gradient_whatever_the_batch_holds(boxes):
    rpn = build()
    proposals, losses = rpn(features(), make_batch(*boxes))
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rpn.parameters())
    assert all(0 < len(p) <= 30 and not p.boxes.requires_grad for p in proposals)
    assert (losses["loss_rpn_first_box_reg"] > 0) == bool(boxes[0])


def test_hard_examples_and_autocast():
    rpn = build(sampler=OHEMSampler(batch_size_per_image=16, positive_fraction=0.5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        proposals, losses = rpn(features(), make_batch([[50, 50, 51, 51]], [[3, 3, 40, 40]]))
    total(losses).backward()
    assert {value.dtype for name, value in losses.items() if name.startswith("loss")} == {torch.float32}
    assert all(value.isfinite() for value in losses.values())
    assert proposals[0].boxes.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in rpn.parameters())


def test_it_learns_one_image():
    rpn = build()
    optimizer = torch.optim.Adam(rpn.parameters(), lr=1e-2)
    batch, maps = make_batch([[4, 6, 30, 20]]), features(1)
    for _ in range(60):
        _, losses = rpn(maps, batch)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    (proposals,), _ = rpn.eval()(maps, make_batch([]))
    assert (proposals.boxes[0] - torch.tensor([4.0, 6.0, 30.0, 20.0])).abs().max() < 3


def test_the_eval_path_can_be_exported():
    rpn = build()
    nn.init.normal_(rpn.head.objectness.weight, std=0.5)

    class Propose(nn.Module):
        def __init__(self):
            super().__init__()
            self.rpn = rpn

        def forward(self, features):
            sizes = [(64, 64)] * 2
            proposals, _ = self.rpn(features, Batch(torch.zeros(2, 3, 64, 64), sizes, sizes, [0, 1]))
            return [(p.boxes, p.objectness, p.level, p.index) for p in proposals]

    module = Propose().eval()
    exported = torch.export.export(module, (features(),)).module()
    other = {name: value.flip(-1) for name, value in features().items()}
    torch.testing.assert_close(exported(other), module(other))


def test_more_than_one_anchor_a_location_is_refused():
    generator = partial(GridAnchorGenerator, sizes=((16.0,), (32.0,)), aspect_ratios=(0.5, 1.0))
    with pytest.raises(
        ValueError, match=r"CascadeRPN has one anchor at each location, .* got 2: give the anchor generator"
    ):
        build(anchor_generator=generator)
