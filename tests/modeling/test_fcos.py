import math
from functools import partial

import pytest
import torch
from torch import nn

from frcnn.modeling.fcos import FCOSProposalGenerator
from frcnn.modeling.fcos_head import SideCoder, fuse
from frcnn.modeling.losses import GIoULoss, L1Loss, SigmoidFocalLoss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import ATSSMatcher, IoUMatcher
from frcnn.modeling.matchers.fcos import FCOSMatcher, centerness, distances
from frcnn.modeling.nms import NMS, SoftNMS
from frcnn.modeling.proposals import TrainTest
from frcnn.modeling.roles import Matcher
from frcnn.structures import Batch, Candidates, FeatureShape, Targets

SHAPES = {"p3": FeatureShape(8, 8), "p4": FeatureShape(8, 16)}


def targets(*boxes):
    return Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))


def cells(size, stride):
    return torch.tensor(
        [[x * stride, y * stride, (x + 1) * stride, (y + 1) * stride] for y in range(size) for x in range(size)]
    ).float()


def build(**options):
    torch.manual_seed(0)
    defaults = {
        "in_features": ("p3", "p4"),
        "matcher": FCOSMatcher(size_limits=(24.0,)),
        "objectness_loss": SigmoidFocalLoss,
        "box_loss": GIoULoss(),
        "nms": NMS(iou_threshold=0.7),
        "pre_nms_top_n": TrainTest(50, 40),
        "post_nms_top_n": TrainTest(30, 20),
        "num_convs": 1,
    }
    return FCOSProposalGenerator(SHAPES, **(defaults | options))


def features(batch=2):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(batch, 8, 64 // s.stride, 64 // s.stride, generator=generator) for name, s in SHAPES.items()
    }


def make_batch(*boxes_per_image):
    sizes = [(64, 64)] * len(boxes_per_image)
    given = [targets(*boxes) for boxes in boxes_per_image]
    return Batch(torch.zeros(len(sizes), 3, 64, 64), sizes, sizes, list(range(len(sizes))), given)


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss"))


def test_targets_on_a_4x4_grid_by_hand():
    # Locations at 4, 12, 20 and 28 along each axis; the object [0, 0, 24, 16] holds x of 4, 12, 20 and y of 4, 12.
    matches = FCOSMatcher(size_limits=(), center_radius=None)(Candidates([cells(4, 8)]), targets([0, 0, 24, 16]))
    labels = matches.labels.reshape(4, 4)
    assert labels.tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    # (4, 4): left 4, right 20, top 4, bottom 12; (12, 4): left 12, right 12.
    assert matches.quality[0].item() == pytest.approx(math.sqrt(4 / 20 * 4 / 12))
    assert matches.quality[1].item() == pytest.approx(math.sqrt(12 / 12 * 4 / 12))
    # Within one stride of the middle (12, 8) are x of 12 alone (4 and 20 are 8 away) and y of 4 and 12.
    near = FCOSMatcher(size_limits=(), center_radius=1.0)(Candidates([cells(4, 8)]), targets([0, 0, 24, 16]))
    assert torch.nonzero(near.labels.reshape(4, 4)).tolist() == [[0, 1], [1, 1]]


def test_of_two_objects_the_smaller_has_the_location():
    large, small = [0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 24.0, 24.0]
    for boxes, winner in (([large, small], 1), ([small, large], 0)):
        matches = FCOSMatcher(size_limits=(), center_radius=None)(Candidates([cells(4, 8)]), targets(*boxes))
        assert matches.labels.tolist() == [1] * 16
        assert (matches.gt_index.reshape(4, 4)[1:3, 1:3] == winner).all()
        assert (matches.gt_index == winner).sum() == 4


def test_the_level_depends_on_the_farthest_side():
    # Of the object [0, 0, 32, 32] the locations of the fine level are 20 or 28 px from the farthest side, those of the
    # coarse one at (8, 8), (24, 8), ... are 24: with a limit of 24 the coarse level has none, and with 22 all four.
    levels = Candidates([cells(4, 8), cells(2, 16)])
    for limit, fine, coarse in ((24.0, 4, 0), (22.0, 4, 4), (30.0, 16, 0)):
        matches = FCOSMatcher(size_limits=(limit,), center_radius=None)(levels, targets([0, 0, 32, 32]))
        assert [(part == 1).sum() for part in matches.labels.split([16, 4])] == [fine, coarse]


def test_nothing_to_match():
    matches = FCOSMatcher(size_limits=())(Candidates([cells(2, 8)]), targets())
    assert matches.labels.tolist() == matches.gt_index.tolist() == [0] * 4
    assert len(FCOSMatcher(size_limits=())(Candidates([torch.zeros(0, 4)]), targets([0, 0, 8, 8])).labels) == 0


def test_sides_by_hand():
    cell, box = torch.tensor([[8.0, 8.0, 16.0, 16.0]]), torch.tensor([[4.0, 0.0, 20.0, 36.0]])
    sides = SideCoder().encode(cell, box)  # the centre (12, 12) is 8, 12, 8 and 24 px from the sides
    assert sides.tolist() == [[1.0, 1.5, 1.0, 3.0]]
    assert torch.equal(SideCoder().decode(cell, sides), box)
    assert centerness(distances(torch.tensor([[12.0, 12.0]]), box)).item() == pytest.approx(math.sqrt(0.5))


def test_two_probabilities_become_one_logit():
    # 0.8 and 0.2: the geometric mean is 0.4.
    logit = fuse(torch.tensor([math.log(4.0)]), torch.tensor([-math.log(4.0)]))
    assert logit.sigmoid().item() == pytest.approx(0.4)
    extreme = fuse(torch.tensor([100.0, -100.0, 100.0]), torch.tensor([100.0, -100.0, -100.0]))
    assert extreme.isfinite().all()
    assert extreme[0] > extreme[2] > extreme[1]


def test_soft_nms_ranks_by_probability():
    generator = silent(build(nms=SoftNMS(min_score=1e-6)).eval())
    output = generator.head(list(features(1).values()))
    output.objectness[0][0, 0, 2, 3] = output.quality[0][0, 0, 2, 3] = 4.0
    (proposals,) = generator.filter_proposals(generator.cells([(8, 8), (4, 4)], (64, 64)), output, [(64, 64)])
    assert proposals.index[0] == 2 * 8 + 3
    assert len(proposals) == 20  # nothing is dropped for an overlap: as many as post_nms_top_n


def silent(generator):
    """All outputs have the value of their bias: objectness and quality 1/2, every side one stride."""
    for layer in (generator.head.objectness, generator.head.sides, generator.head.quality):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return generator


def test_losses_by_hand():
    # The object is the box that location (12, 12) of the fine level predicts, one stride to each side; within one
    # stride of its middle lies only this location, whose centerness is 1.
    box_losses = (GIoULoss(), L1Loss(loss_weight=5))
    for box_loss in box_losses:
        generator = silent(build(matcher=FCOSMatcher(size_limits=(24.0,), center_radius=1.0), box_loss=box_loss))
        _, losses = generator(features(1), make_batch([[4, 4, 20, 20]]))
        assert losses["rpn/num_positive"] == 1
        assert losses["rpn/num_negative"] == 79
        assert losses["loss_rpn_box_reg"].item() == pytest.approx(0, abs=1e-6)
        assert losses["loss_rpn_quality"].item() == pytest.approx(math.log(2))
        # Focal loss at probability 1/2: one positive with alpha 1/4, 79 negatives with 3/4, each 1/4 log 2.
        assert losses["loss_objectness"].item() == pytest.approx((0.25 + 79 * 0.75) * 0.25 * math.log(2), rel=1e-5)
    # Two strides wide to the left: one side is off by one stride, and the object's middle has moved to (8, 12).
    _, losses = silent(build(box_loss=L1Loss(loss_weight=5)))(features(1), make_batch([[-4, 4, 20, 20]]))
    assert losses["loss_rpn_box_reg"] > 0


def test_the_quality_may_be_the_iou():
    # Positives are all locations that predict the object with IoU q; the loss of a logit of 0 is log 2 whatever q is,
    # so the gradient tells: sigmoid(0) - q, the mean over the positives.
    given = make_batch([[4, 4, 20, 20]])
    for quality in ("centerness", "iou"):
        matcher = FCOSMatcher(size_limits=(24.0,), center_radius=1.0)
        generator = silent(build(matcher=matcher, quality=quality))
        with torch.no_grad():
            generator.head.sides.bias.fill_(math.log(0.5))  # half a stride to each side: a quarter of the object
        generator(features(1), given)[1]["loss_rpn_quality"].backward()
        fit = {"centerness": 1.0, "iou": 0.25}[quality]
        assert generator.head.quality.bias.grad.item() == pytest.approx(0.5 - fit)


def test_proposals_are_ranked_by_objectness_and_quality():
    generator = silent(build(pre_nms_top_n=TrainTest(1, 1))).eval()
    output = generator.head(list(features(1).values()))
    output.objectness[0][0, 0, 2, 3] = 4.0
    output.quality[0][0, 0, 2, 3] = -4.0
    output.objectness[0][0, 0, 5, 6] = 3.0
    output.quality[0][0, 0, 5, 6] = 3.0
    (proposals,) = generator.filter_proposals(generator.cells([(8, 8), (4, 4)], (64, 64)), output, [(64, 64)])
    assert proposals.index[0] == 5 * 8 + 6
    assert proposals.boxes[0].tolist() == [44, 36, 60, 52]  # around (52, 44)
    assert proposals.objectness[0].item() == pytest.approx(3.0, abs=1e-5)
    assert proposals.level.tolist() == [0, 1]


@pytest.mark.parametrize("boxes", [[[[3, 3, 20, 20], [10, 10, 62, 50]], []], [[], []]])
def test_every_parameter_has_a_gradient_whatever_the_batch_holds(boxes):
    generator = build()
    proposals, losses = generator(features(), make_batch(*boxes))
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())
    assert all(0 < len(p) <= 30 and not p.boxes.requires_grad for p in proposals)
    assert (losses["loss_rpn_box_reg"] > 0) == bool(boxes[0])


@pytest.mark.parametrize(
    "matcher", [ATSSMatcher(candidates_per_level=4), IoUMatcher(high_threshold=0.2, low_threshold=0.1)]
)
def test_other_matchers_fit(matcher):
    _, losses = build(matcher=matcher)(features(), make_batch([[8, 8, 24, 24], [10, 10, 30, 26]], []))
    assert losses["rpn/num_positive"] > 0
    assert all(value.isfinite() for value in losses.values())


def test_a_matcher_may_ask_what_the_model_says():
    seen = []

    class Asking(Matcher):
        def forward(self, candidates, targets):
            seen.append(candidates.predictions())
            return FCOSMatcher(size_limits=(24.0,))(candidates, targets)

    silent(build(matcher=Asking()))(features(1), make_batch([[4, 4, 20, 20]]))
    assert seen[0].logits.shape == seen[0].scores.shape == (80, 1)
    assert seen[0].boxes[9].tolist() == [4, 4, 20, 20]  # location (12, 12)
    assert not seen[0].boxes.requires_grad


def test_counts_are_averaged_over_processes_in_training_only(monkeypatch):
    # This process has one positive, the other three.
    monkeypatch.setattr("frcnn.distributed.mean_over_processes", lambda count: (count + 3) / 2)
    monkeypatch.setattr("frcnn.distributed.world_size", lambda: 2)
    generator = silent(build(matcher=FCOSMatcher(size_limits=(24.0,), center_radius=1.0)))
    given = make_batch([[4, 4, 20, 20]])
    assert generator(features(1), given)[1]["loss_rpn_quality"].item() == pytest.approx(math.log(2) / 2)
    assert generator.eval()(features(1), given)[1]["loss_rpn_quality"].item() == pytest.approx(math.log(2))


def test_float32_under_autocast():
    generator = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (proposals, _), losses = generator(features(), make_batch([[50, 50, 51, 51]], [[3, 3, 40, 40]]))
    total(losses).backward()
    assert proposals.boxes.dtype == proposals.objectness.dtype == torch.float32
    assert all(value.dtype == torch.float32 and value.isfinite() for name, value in losses.items() if "loss" in name)


def test_it_learns_one_image():
    generator = build()
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2)
    batch, maps = make_batch([[4, 6, 30, 20]]), features(1)
    for _ in range(60):
        _, losses = generator(maps, batch)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    (proposals,), _ = generator.eval()(maps, make_batch([]))
    assert (proposals.boxes[0] - torch.tensor([4.0, 6.0, 30.0, 20.0])).abs().max() < 3


def test_the_eval_path_can_be_exported():
    class Propose(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = build()

        def forward(self, features):
            sizes = [(64, 64)] * 2
            proposals, _ = self.generator(features, Batch(torch.zeros(2, 3, 64, 64), sizes, sizes, [0, 1]))
            return [(p.boxes, p.objectness, p.level, p.index) for p in proposals]

    module = Propose().eval()
    exported = torch.export.export(module, (features(),)).module()
    other = {name: value.flip(-1) for name, value in features().items()}
    torch.testing.assert_close(exported(other), module(other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matcher": FCOSMatcher()}, "FCOSMatcher is made for 5 levels of candidates, but here it gets 2"),
        ({"objectness_loss": SoftmaxCrossEntropy}, "objectness_loss must have one logit"),
        ({"in_features": ("p3", "p9")}, "in_features has p9, which is none of the feature maps p3, p4"),
        ({"prior_probability": 1.0}, "prior_probability must be between 0 and 1, got 1.0"),
        ({"num_convs": -1}, "num_convs must be at least 0, got -1"),
        ({"quality_loss_weight": -1.0}, "quality_loss_weight must be at least 0, got -1.0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_limits": (64.0, 32.0)}, r"size_limits must ascend and be above 0, got \[64.0, 32.0\]"),
        ({"size_limits": (0.0, 32.0)}, "must ascend and be above 0"),
        ({"center_radius": 0.0}, "center_radius must be above 0, got 0.0"),
    ],
)
def test_limits_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        FCOSMatcher(**options)


def test_a_tower_is_shared_by_levels_and_scales_are_not():
    head = partial(build, num_convs=2)().head
    assert len(head.score_tower) == len(head.box_tower) == 2
    assert head.scales.shape == (2,)
