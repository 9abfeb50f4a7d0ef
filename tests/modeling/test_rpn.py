import math
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.detection import rpn as torchvision_rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.image_list import ImageList

from frcnn.modeling.anchors import GridAnchorGenerator
from frcnn.modeling.losses import (
    BinaryCrossEntropy,
    GIoULoss,
    L1Loss,
    SigmoidFocalLoss,
    SmoothL1Loss,
    SoftmaxCrossEntropy,
)
from frcnn.modeling.matchers import ATSSMatcher, IoUMatcher
from frcnn.modeling.nms import NMS, SoftNMS
from frcnn.modeling.proposals import TrainTest
from frcnn.modeling.roles import Matcher, RPNHead, RPNOutput
from frcnn.modeling.rpn import RegionProposalNetwork
from frcnn.modeling.rpn_head import ConvRPNHead
from frcnn.modeling.samplers import AllSampler, BalancedPositiveNegativeSampler, OHEMSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, DrawKey, FeatureShape, Targets

MATCHER = IoUMatcher(high_threshold=0.7, low_threshold=0.3, allow_low_quality_matches=True)


def build_rpn(feature_shapes, sizes, aspect_ratios=(0.5, 1.0, 2.0), offset=0.0, **options):
    defaults = {
        "in_features": tuple(feature_shapes),
        "anchor_generator": partial(GridAnchorGenerator, sizes=sizes, aspect_ratios=aspect_ratios, offset=offset),
        "head": ConvRPNHead,
        "matcher": MATCHER,
        "sampler": BalancedPositiveNegativeSampler(batch_size_per_image=256, positive_fraction=0.5),
        "box_coder": BoxCoder(),
        "objectness_loss": BinaryCrossEntropy,
        "box_loss": L1Loss(),
        "nms": NMS(iou_threshold=0.7),
        "pre_nms_top_n": TrainTest(train=2000, test=1000),
        "post_nms_top_n": TrainTest(train=1000, test=1000),
    }
    return RegionProposalNetwork(feature_shapes, **(defaults | options))


def make_batch(padded_size, image_sizes, gt_boxes=None, draw=None):
    targets = None
    if gt_boxes is not None:
        boxes = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in gt_boxes]
        targets = [Targets(b, torch.full((len(b),), 7)) for b in boxes]
    images = torch.zeros(len(image_sizes), 3, *padded_size)
    ids = list(range(len(image_sizes)))
    return Batch(images, image_sizes, image_sizes, ids, targets=targets, draw=draw or DrawKey())


class GivenHead(RPNHead):
    """Says what a test wants it to say, whatever the features are."""

    def __init__(self, objectness, deltas):
        super().__init__()
        self.output = RPNOutput(objectness, deltas)

    def forward(self, features):
        return self.output


def row_rpn(logits, deltas=None, **options):
    """One row of 16x16 anchors side by side: [0, 0, 16, 16], [16, 0, 32, 16], ..."""
    width = len(logits)
    logits = torch.tensor(logits).reshape(1, 1, 1, width)
    deltas = torch.zeros(1, 4, 1, width) if deltas is None else torch.tensor(deltas).T.reshape(1, 4, 1, width)
    head = GivenHead([logits.requires_grad_()], [deltas.requires_grad_()])
    rpn = build_rpn(
        {"p4": FeatureShape(2, 16)}, ((16.0,),), (1.0,), offset=0.5, head=lambda channels, anchors: head, **options
    )
    return rpn, {"p4": torch.zeros(1, 2, 1, width)}


def test_the_notes_example():
    rpn = build_rpn(
        {"0": FeatureShape(1280, 32)},
        ((32.0, 64.0, 128.0, 256.0, 512.0),),
        post_nms_top_n=TrainTest(train=2000, test=1000),
    )
    feature = torch.randn(2, 1280, 25, 39, generator=torch.Generator().manual_seed(0))
    output = rpn.head([feature])
    assert [tuple(t.shape) for t in (*output.objectness, *output.deltas)] == [(2, 15, 25, 39), (2, 60, 25, 39)]
    (anchors,) = rpn.anchor_generator([(25, 39)], (800, 1248))
    assert anchors.shape == (14_625, 4)
    objectness, deltas = rpn.concat_box_prediction_layers(output)
    assert objectness.shape == (29_250, 1)
    assert deltas.shape == (29_250, 4)

    boxes = [[100, 100, 300, 300], [500, 200, 700, 600], [900, 400, 1000, 450]]
    batch = make_batch((800, 1248), [(800, 1242), (800, 1066)], [boxes, boxes[:1]])
    matches = rpn.assign_targets_to_anchors([anchors], output, batch.targets, batch.image_sizes)
    assert [m.labels.shape for m in matches] == [(14_625,), (14_625,)]
    assert set(matches[0].matched_idxs.tolist()) == {-2, -1, 0, 1, 2}
    proposals, losses = rpn({"0": feature}, batch)
    for p in proposals:
        assert 0 < len(p) <= 2000
        assert p.boxes.shape == (len(p), 4)
    assert losses["rpn/num_positive"] + losses["rpn/num_negative"] == 256
    assert 0 < losses["rpn/num_positive"] <= 128


def test_losses_by_hand():
    # Anchor 0 is the ground truth, anchor 1 is a negative. Two binary cross entropies of log 2; L1 of 0.1, 0.2, 0, 0.3.
    for normalizer, divisor in (("quota", 8), ("sampled", 2), ("positive", 1)):
        rpn, features = row_rpn(
            [0.0, 0.0],
            [[0.1, 0.2, 0.0, -0.3], [9.0, 9.0, 9.0, 9.0]],
            sampler=BalancedPositiveNegativeSampler(batch_size_per_image=8, positive_fraction=0.5),
            loss_normalizer=normalizer,
        )
        _, losses = rpn(features, make_batch((16, 32), [(16, 32)], [[[0, 0, 16, 16]]]))
        assert losses["loss_objectness"].item() == pytest.approx(2 * math.log(2) / divisor)
        assert losses["loss_rpn_box_reg"].item() == pytest.approx(0.6 / divisor)
        assert losses["rpn/num_positive"] == losses["rpn/num_negative"] == 1


def test_loss_weights():
    plain, features = row_rpn([0.5, 0.0], [[0.1, 0.2, 0.0, -0.3]] * 2)
    weighted, _ = row_rpn(
        [0.5, 0.0],
        [[0.1, 0.2, 0.0, -0.3]] * 2,
        box_loss=L1Loss(loss_weight=10),
        objectness_loss=partial(BinaryCrossEntropy, loss_weight=3),
    )
    batch = make_batch((16, 32), [(16, 32)], [[[0, 0, 16, 16]]])
    (_, one), (_, other) = plain(features, batch), weighted(features, batch)
    torch.testing.assert_close(other["loss_objectness"], 3 * one["loss_objectness"])
    torch.testing.assert_close(other["loss_rpn_box_reg"], 10 * one["loss_rpn_box_reg"])


def test_hard_examples():
    # Of the negatives 1, 2 and 3 the detector is most wrong about 2.
    rpn, features = row_rpn(
        [0.0, -1.0, 2.0, 0.0],
        sampler=OHEMSampler(batch_size_per_image=2, positive_fraction=0.5),
        loss_normalizer="sampled",
    )
    _, losses = rpn(features, make_batch((16, 64), [(16, 64)], [[[0, 0, 16, 16]]]))
    expected = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert losses["loss_objectness"].item() == pytest.approx(expected)


def test_hardness_is_the_loss_of_the_class_and_of_the_box_without_a_trace():
    # Anchors 0 and 1 are positive with the same logit; the box of anchor 1 is off by 5 in every delta, weighted twice.
    class Watched(L1Loss):
        def forward(self, *args):
            watched.append((self.training, torch.is_grad_enabled()))
            return super().forward(*args)

    class Asking(AllSampler):
        def forward(self, matches, hardness, generator):
            asked.append(hardness())
            return super().forward(matches, hardness, generator)

    watched, asked = [], []
    rpn, features = row_rpn(
        [0.0, 0.0, -1.0],
        [[0.0] * 4, [5.0] * 4, [9.0] * 4],
        sampler=Asking(),
        box_loss=Watched(loss_weight=2),
        loss_normalizer="sampled",
    )
    batch = make_batch((16, 48), [(16, 48)], [[[0, 0, 16, 16], [16, 0, 32, 16]]])
    rpn.train()(features, batch)
    expected = [math.log(2), math.log(2) + 2 * 20, math.log(1 + math.exp(-1))]
    assert asked[0].tolist() == pytest.approx(expected)
    assert not asked[0].requires_grad
    assert watched == [(False, False), (True, True)]


def test_hooks_can_follow_an_anchor_through_the_steps():
    # As below: of the anchors 3, 2, 1 and 0 in this order, 3 lies outside, and 1 is suppressed by 2.
    rpn, features = row_rpn([1.0, 2.0, 3.0, 4.0], [[0.0] * 4, [1.0, 0.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4])
    seen = {}
    for name in ("rank", "suppress", "suppress.nms"):
        rpn.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output})
        )
    rpn.eval()(features, make_batch((16, 64), [(16, 44)]))
    assert [ranked.index.tolist() for ranked in seen["rank"]] == [[3, 2, 1, 0]]
    proposals, row = seen["suppress"]
    assert (row.tolist(), proposals.index.tolist()) == ([1, 3], [2, 0])
    assert seen["suppress.nms"][0].tolist() == [0, 2]


def test_proposals_by_hand():
    # Anchor 2 scores best, 0 next; anchor 1 is moved onto anchor 2 and suppressed; anchor 3 lies outside the image.
    rpn, features = row_rpn([1.0, 2.0, 3.0, 4.0], [[0.0] * 4, [1.0, 0.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4])
    (proposals,), losses = rpn.eval()(features, make_batch((16, 64), [(16, 44)]))
    assert proposals.boxes.tolist() == [[32, 0, 44, 16], [0, 0, 16, 16]]
    assert proposals.objectness.tolist() == [3, 1]
    assert proposals.index.tolist() == [2, 0]
    assert proposals.level.tolist() == [0, 0]
    assert losses == {}


def test_numbers_of_proposals_in_training_and_evaluation():
    rpn, features = row_rpn(
        [1.0, 2.0, 3.0, 4.0],
        pre_nms_top_n=TrainTest(train=3, test=4),
        post_nms_top_n=TrainTest(train=3, test=2),
    )
    batch = make_batch((16, 64), [(16, 64)])
    assert rpn.train()(features, batch)[0][0].index.tolist() == [3, 2, 1]
    assert rpn.eval()(features, batch)[0][0].index.tolist() == [3, 2]


def test_small_improbable_and_infinite_proposals_are_dropped():
    thin = [0.0, 0.0, math.log(1 / 16), 0.0]  # 1 px wide
    options = {"logits": [0.0, math.nan, 3.0, -3.0], "deltas": [thin, [0.0] * 4, [0.0] * 4, [0.0] * 4]}
    batch = make_batch((16, 64), [(16, 64)])

    def kept(**more):
        rpn, features = row_rpn(**options, **more)
        return rpn.eval()(features, batch)[0][0].index.tolist()

    assert kept() == [2, 0, 3]
    assert kept(score_thresh=0.4) == [2, 0]
    assert kept(min_size=1.0) == [2, 3]
    assert kept(min_size=0.99) == [2, 0, 3]
    assert kept(nms_on="probability") == [2, 0, 3]


def test_no_proposal_at_all():
    rpn, features = row_rpn([math.nan, math.inf])
    (proposals,), _ = rpn.eval()(features, make_batch((16, 32), [(16, 32)]))
    assert len(proposals) == 0
    assert proposals.boxes.shape == (0, 4)


def pyramid(seed=0, num_images=2):
    """Two levels of an 64x64 batch, with all anchors of the notes' ratios: 3 x (8 x 8 + 4 x 4) = 240 candidates."""
    shapes = {"p3": FeatureShape(6, 8), "p4": FeatureShape(6, 16)}
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: torch.randn(num_images, 6, 64 // s.stride, 64 // s.stride, generator=generator)
        for name, s in shapes.items()
    }
    return shapes, features


def build_pyramid_rpn(**options):
    shapes, features = pyramid()
    rpn = build_rpn(shapes, ((16.0,), (32.0,)), **options)
    for layer in (rpn.head.objectness, rpn.head.deltas):
        nn.init.normal_(layer.weight, std=0.5)
    return rpn, features


GT_BOXES = [[[3, 3, 20, 20], [30, 10, 62, 50]], []]
SIZES = [(60, 64), (64, 50)]


def test_losses_are_there_whenever_targets_are():
    rpn, features = build_pyramid_rpn()
    with_targets, without = make_batch((64, 64), SIZES, GT_BOXES), make_batch((64, 64), SIZES)
    assert rpn.train()(features, with_targets)[1].keys() == rpn.eval()(features, with_targets)[1].keys()
    assert rpn.train()(features, without)[1] == rpn.eval()(features, without)[1] == {}


def test_draws_depend_on_the_key_only():
    rpn, features = build_pyramid_rpn(
        sampler=BalancedPositiveNegativeSampler(batch_size_per_image=8, positive_fraction=0.5)
    )
    state = torch.get_rng_state()

    def loss(first_image, iteration=0):
        draw = DrawKey(seed=3, iteration=iteration, first_image=first_image)
        return rpn(features, make_batch((64, 64), SIZES, GT_BOXES, draw))[1]["loss_objectness"].item()

    assert loss(0) == loss(0)
    assert len({loss(0), loss(2), loss(0, iteration=1)}) == 3
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("normalizer", ["quota", "sampled", "positive"])
def test_no_object_in_any_image_gives_zero_box_loss_with_a_gradient(normalizer):
    rpn, features = build_pyramid_rpn(loss_normalizer=normalizer)
    _, losses = rpn(features, make_batch((64, 64), SIZES, [[], []]))
    (losses["loss_objectness"] + losses["loss_rpn_box_reg"]).backward()
    assert losses["loss_rpn_box_reg"] == 0
    assert losses["loss_objectness"] > 0
    assert losses["rpn/num_positive"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rpn.parameters())


def test_no_candidate_is_sampled():
    class DiscardAll(Matcher):
        def forward(self, candidates, targets):
            matches = MATCHER(candidates, targets)
            matches.labels.fill_(-1)
            return matches

    rpn, features = build_pyramid_rpn(matcher=DiscardAll(), loss_normalizer="sampled")
    _, losses = rpn(features, make_batch((64, 64), SIZES, GT_BOXES))
    (losses["loss_objectness"] + losses["loss_rpn_box_reg"]).backward()
    assert losses["loss_objectness"] == losses["loss_rpn_box_reg"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"matcher": ATSSMatcher(candidates_per_level=9)},
        {"sampler": OHEMSampler(batch_size_per_image=16, positive_fraction=0.5)},
        {"box_loss": GIoULoss(loss_weight=10)},
        {"objectness_loss": SigmoidFocalLoss, "sampler": AllSampler(), "loss_normalizer": "positive"},
        {"head": partial(ConvRPNHead, num_convs=2)},
        {"head": partial(ConvRPNHead, num_convs=0)},
    ],
)
def test_parts_can_be_exchanged(options):
    rpn, features = build_pyramid_rpn(**options)
    proposals, losses = rpn(features, make_batch((64, 64), SIZES, GT_BOXES))
    assert all(len(p) for p in proposals)
    assert losses["loss_objectness"] > 0
    assert losses["loss_rpn_box_reg"] > 0
    assert losses["rpn/num_positive"] > 0


def test_focal_objectness_over_all_anchors_starts_small():
    """With a prior of 0.01 the many negatives of the first step do not drown the few positives."""
    focal = {"objectness_loss": SigmoidFocalLoss, "sampler": AllSampler(), "loss_normalizer": "positive"}
    losses = []
    for prior in (0.5, 0.01):
        rpn, features = build_pyramid_rpn(head=partial(ConvRPNHead, prior_probability=prior), **focal)
        nn.init.zeros_(rpn.head.objectness.weight)
        losses.append(rpn(features, make_batch((64, 64), SIZES, GT_BOXES))[1])
    positive, negative = (losses[0][f"rpn/num_{kind}"].item() for kind in ("positive", "negative"))
    for prior, loss in zip((0.5, 0.01), losses, strict=True):
        of_positive = 0.25 * (1 - prior) ** 2 * -math.log(prior)
        of_negative = 0.75 * prior**2 * -math.log(1 - prior)
        expected = of_positive + of_negative * negative / positive
        assert loss["loss_objectness"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("in_features", "message"),
    [
        (("p4", "p3"), "must go from fine to coarse, but p4, p3 have strides"),
        (("p3", "p3"), "must name each feature map once, got p3, p3"),
        (("p3", "p9"), "in_features has p9, which is none of the feature maps p3, p4"),
        ((), "in_features must name feature maps of p3, p4"),
    ],
)
def test_levels_that_cannot_be_meant_are_refused(in_features, message):
    with pytest.raises(ValueError, match=message):
        build_pyramid_rpn(in_features=in_features)


def test_a_prior_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="prior_probability must be between 0 and 1, got 0"):
        ConvRPNHead(4, 3, prior_probability=0)


def test_images_may_have_anchors_of_their_own():
    # The anchors of the second image lie 16 px to the right of the first one's: so does the object that they find.
    rpn, _ = row_rpn([0.0, 0.0], sampler=AllSampler(), loss_normalizer="sampled")
    head = GivenHead([torch.tensor([2.0, 1.0]).expand(2, 1, 1, 2)], [torch.zeros(2, 4, 1, 2)])
    rpn.head = head
    shared = rpn.anchor_generator([(1, 2)], (16, 48))[0]
    anchors = [torch.stack((shared, shared + torch.tensor([16.0, 0.0, 16.0, 0.0])))]  # [2, 2, 4]
    batch = make_batch((16, 48), [(16, 48)] * 2, [[[0, 0, 16, 16]], [[16, 0, 32, 16]]])
    matches = rpn.assign_targets_to_anchors(anchors, head.output, batch.targets, batch.image_sizes)
    assert [m.labels.tolist() for m in matches] == [[1, 0], [1, 0]]
    losses = rpn.compute_loss([torch.zeros(2, 2, 1, 2)], head.output, anchors, matches, batch)
    assert losses["loss_rpn_box_reg"] == 0
    first, second = rpn.eval().filter_proposals(anchors, head.output, batch.image_sizes)
    assert first.boxes.tolist() == [[0, 0, 16, 16], [16, 0, 32, 16]]
    assert second.boxes.tolist() == [[16, 0, 32, 16], [32, 0, 48, 16]]


def test_soft_nms_ranks_by_probability_or_is_refused():
    rpn, features = build_pyramid_rpn(nms=SoftNMS(), nms_on="probability")
    proposals, _ = rpn(features, make_batch((64, 64), SIZES, GT_BOXES))
    assert all(len(p) for p in proposals)
    with pytest.raises(
        ValueError, match=r"SoftNMS needs scores in 0\.\.1, got nms_on 'logit': set nms_on: probability"
    ):
        build_pyramid_rpn(nms=SoftNMS())


def test_a_matcher_may_ask_what_the_model_says():
    seen = []

    class Asking(Matcher):
        def forward(self, candidates, targets):
            seen.append((candidates, candidates.predictions(), targets))
            return MATCHER(candidates, targets)

    rpn, features = build_pyramid_rpn(matcher=Asking())
    proposals, _ = rpn(features, make_batch((64, 64), [(64, 64)] * 2, GT_BOXES))
    for (candidates, predictions, targets), kept in zip(seen, proposals, strict=True):
        assert [len(boxes) for boxes in candidates.boxes_per_level] == [192, 48]
        assert predictions.logits.shape == (240, 1)
        assert predictions.boxes.shape == (240, 4)
        assert torch.equal(predictions.scores, predictions.logits.sigmoid())
        assert candidates.image_size == (64, 64)
        assert not predictions.logits.requires_grad
        assert not predictions.boxes.requires_grad
        assert (targets.classes == 0).all()  # a proposal generator knows no classes
        # The proposals are these predictions, clipped: ranked first and decoded after, they are the same bits.
        assert torch.equal(predictions.logits[kept.index, 0], kept.objectness)
        assert torch.equal(predictions.boxes[kept.index].clamp(0, 64), kept.boxes)
        assert torch.equal(kept.level, (kept.index >= 192).long())


def test_head_at_gives_the_dense_output_and_its_gradient():
    rpn, features = build_pyramid_rpn()
    maps = list(features.values())
    index = [torch.tensor([200, 0, 239]), torch.tensor([7])]
    dense = rpn.head(maps)
    logits, deltas = rpn.head.at(maps, dense, index)
    all_logits, all_deltas = rpn.concat_box_prediction_layers(dense)
    rows = torch.tensor([200, 0, 239, 240 + 7])
    assert torch.equal(logits, all_logits[rows, 0])
    assert torch.equal(deltas, all_deltas[rows])
    for ours, theirs in ((logits.sum(), all_logits[rows].sum()), (deltas.sum(), all_deltas[rows].sum())):
        parameters = list(rpn.head.parameters())
        gradients = [
            torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True) for value in (ours, theirs)
        ]
        for one, other in zip(*gradients, strict=True):
            assert (one is None and other is None) or torch.allclose(one, other)


def test_one_pixel_box_in_bfloat16_autocast():
    shapes = {"p4": FeatureShape(4, 16)}
    rpn = build_rpn(shapes, ((16.0,),), sampler=AllSampler(), loss_normalizer="sampled")
    features = {"p4": torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))}
    batch = make_batch((1024, 1024), [(1024, 1024)], [[[1001, 1001, 1002, 1002]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (proposals,), losses = rpn(features, batch)
    (losses["loss_objectness"] + losses["loss_rpn_box_reg"]).backward()
    assert losses["rpn/num_positive"] > 0
    assert losses["loss_rpn_box_reg"].isfinite()
    assert losses["loss_rpn_box_reg"].dtype == proposals.boxes.dtype == proposals.objectness.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in rpn.parameters())


def test_counts_are_averaged_over_processes_in_training_only(monkeypatch):
    # This process has one positive and the other has three, so the mean is two.
    monkeypatch.setattr("frcnn.distributed.mean_over_processes", lambda value: (value + 3) / 2)
    monkeypatch.setattr("frcnn.distributed.world_size", lambda: 2)
    rpn, features = row_rpn([0.0, 0.0], [[0.1, 0.2, 0.0, -0.3]] * 2, loss_normalizer="positive")
    batch = make_batch((16, 32), [(16, 32)], [[[0, 0, 16, 16]]])
    assert rpn(features, batch)[1]["loss_rpn_box_reg"].item() == pytest.approx(0.6 / 2)
    assert rpn.eval()(features, batch)[1]["loss_rpn_box_reg"].item() == pytest.approx(0.6)


@pytest.mark.parametrize("training", [True, False])
def test_equal_to_torchvision(training):
    features = pyramid()[1]
    quota = 10_000  # every candidate is sampled, so that no draw makes a difference
    generator = partial(
        GridAnchorGenerator,
        sizes=((16.0,), (32.0,)),
        aspect_ratios=(0.5, 1.0, 2.0),
        round_cells=True,
        stride="padded_size",
        order="ratio",
    )
    ours = build_pyramid_rpn(
        anchor_generator=generator,
        sampler=BalancedPositiveNegativeSampler(batch_size_per_image=quota, positive_fraction=0.5),
        box_loss=SmoothL1Loss(beta=1 / 9),
        loss_normalizer="sampled",
        pre_nms_top_n=TrainTest(train=100, test=90),
        post_nms_top_n=TrainTest(train=60, test=50),
        min_size=1e-3,
        min_size_inclusive=True,
        nms_on="probability",
    )[0]
    head = torchvision_rpn.RPNHead(6, 3)
    names = {"conv.0.0": "convs.0", "cls_logits": "objectness", "bbox_pred": "deltas"}
    state = ours.head.state_dict()
    head.load_state_dict(
        {f"{theirs}.{kind}": state[f"{our}.{kind}"] for theirs, our in names.items() for kind in ("weight", "bias")}
    )
    top_n = {"training": 100, "testing": 90}, {"training": 60, "testing": 50}
    theirs = torchvision_rpn.RegionProposalNetwork(
        TorchvisionAnchors(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2), head, 0.7, 0.3, quota, 0.5, *top_n, 0.7
    )
    ours.train(training)
    theirs.train(training)
    batch = make_batch((64, 64), SIZES, GT_BOXES)
    proposals, losses = ours(features, batch)
    their_targets = [{"boxes": t.boxes, "labels": t.classes} for t in batch.targets]
    their_boxes, their_losses = theirs(ImageList(batch.images, SIZES), features, their_targets)
    for p, boxes in zip(proposals, their_boxes, strict=True):
        assert len(boxes) == (60 if training else 50)
        torch.testing.assert_close(p.boxes, boxes)
    for name, value in their_losses.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=0)


def test_the_eval_path_can_be_exported():
    rpn, features = build_pyramid_rpn(post_nms_top_n=TrainTest(train=60, test=50))

    class Propose(nn.Module):
        def __init__(self):
            super().__init__()
            self.rpn = rpn

        def forward(self, features):
            proposals, _ = self.rpn(features, make_batch((64, 64), SIZES))
            return [(p.boxes, p.objectness, p.level, p.index) for p in proposals]

    module = Propose().eval()
    exported = torch.export.export(module, (features,)).module()
    for seed in (0, 1):
        other = pyramid(seed)[1]
        for ours, theirs in zip(exported(other), module(other), strict=True):
            assert len(theirs[0]) == 50
            for one, two in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, two)


def test_builds_on_the_meta_device():
    with torch.device("meta"):
        rpn = build_rpn({"p3": FeatureShape(256, 8)}, ((16.0,),))
    assert all(p.is_meta for p in rpn.parameters())


def test_head_is_initialised_with_small_weights():
    head = ConvRPNHead(64, 3, num_convs=2)
    assert set(head.state_dict()) == {
        f"{name}.{kind}" for name in ("convs.0", "convs.1", "objectness", "deltas") for kind in ("weight", "bias")
    }
    assert head.convs[1].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.deltas.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": ("p9",)}, "in_features has p9, which is none of the feature maps p3, p4"),
        ({"in_features": ()}, "in_features must name feature maps of p3, p4"),
        ({"sampler": AllSampler()}, "'quota' needs a sampler's batch_size_per_image, AllSampler has none"),
        ({"objectness_loss": SoftmaxCrossEntropy}, "one logit per anchor, SoftmaxCrossEntropy has 2"),
        ({"score_thresh": 5.0}, r"score_thresh must be in \[0, 1\], got 5.0"),
        ({"min_size": -1.0}, "min_size must be at least 0, got -1.0"),
        ({"head": partial(ConvRPNHead, num_convs=-1)}, "num_convs must be at least 0, got -1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_pyramid_rpn(**options)


def test_levels_of_different_widths_are_refused():
    with pytest.raises(ValueError, match=r"same number of channels, got \[64, 128\]"):
        build_rpn({"res2": FeatureShape(64, 4), "res3": FeatureShape(128, 8)}, ((16.0,), (32.0,)))


def test_numbers_are_checked():
    with pytest.raises(ValueError, match="train and test must be at least 1, got 0 and 1000"):
        TrainTest(train=0, test=1000)
