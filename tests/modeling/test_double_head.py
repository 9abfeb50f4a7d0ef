from functools import partial

import pytest
import torch

from frcnn.modeling.box_heads import TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.double_head import DoubleHeadExtROIHeads, DoubleHeadROIHeads, enlarge_boxes
from frcnn.modeling.groie import GRoIE
from frcnn.modeling.losses import L1Loss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.residual_box_head import ResidualBoxHead
from frcnn.modeling.roles import BoxPredictor
from frcnn.modeling.samplers import BalancedPositiveNegativeSampler, OHEMSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, FeatureShape, Proposals, Targets

K = 2
SHAPES = {"p2": FeatureShape(4, 4)}
BOXES = [torch.tensor([[8.0, 8.0, 40.0, 40.0], [10.0, 20.0, 30.0, 40.0]])]


def make(cls=DoubleHeadROIHeads, sampler=None, **options):
    torch.manual_seed(0)
    defaults = {
        "in_features": ("p2",),
        "matcher": IoUMatcher(high_threshold=0.5, low_threshold=0.5),
        "sampler": sampler or BalancedPositiveNegativeSampler(batch_size_per_image=8, positive_fraction=0.5),
        "pooler": partial(ROIAlign, resolution=3),
        "box_head": partial(TwoMLPHead, width=16),
        "regression_head": partial(ResidualBoxHead, num_blocks=1, width=16),
        "box_predictor": partial(
            FastRCNNPredictor, box_coder=BoxCoder((10, 10, 5, 5)), class_loss=SoftmaxCrossEntropy, box_loss=L1Loss()
        ),
        "postprocess": Postprocess(nms=NMS(iou_threshold=0.5)),
        "branches": {},
    }
    return cls(SHAPES, K, **(defaults | options))


def features(batch=1):
    return {"p2": torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(1))}


def batch(boxes, proposals=BOXES):
    targets = [Targets(torch.tensor(b).reshape(-1, 4), torch.ones(len(b), dtype=torch.int64)) for b in boxes]
    size = len(boxes)
    given = Batch(torch.zeros(size, 3, 64, 64), [(64, 64)] * size, [(64, 64)] * size, list(range(size)), targets)
    found = [Proposals(b, torch.zeros(len(b)), *(torch.arange(len(b)) for _ in range(2))) for b in proposals]
    return features(size), found, given


def test_boxes_are_enlarged_around_their_centres():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 10.0, 20.0]])
    expected = [[7.0, 17.0, 33.0, 43.0], [-1.5, -3.0, 11.5, 23.0]]  # 20 becomes 26: 3 on each side
    torch.testing.assert_close(enlarge_boxes(boxes, 1.3), torch.tensor(expected))
    assert enlarge_boxes(torch.zeros(0, 4), 1.3).shape == (0, 4)


def test_one_head_classifies_the_box_and_the_other_regresses_the_enlarged_one():
    heads = make().eval()
    maps = features()
    logits, deltas = heads.run_head(maps, BOXES)
    on_the_box = heads.box_head(heads.box_roi_pool(maps, BOXES))
    on_the_enlarged = heads.regression_head(heads.box_roi_pool(maps, [enlarge_boxes(BOXES[0], 1.3)]))
    assert torch.equal(logits, heads.box_predictor.cls_score(on_the_box))
    assert torch.equal(deltas, heads.box_predictor.bbox_pred(on_the_enlarged))
    # Deltas are relative to the boxes as they were.
    (scored,) = heads.predict(maps, BOXES, [(64, 64)])
    torch.testing.assert_close(scored.boxes, heads.box_predictor.decode(logits, deltas, BOXES[0]).boxes.clamp(0, 64))


@pytest.mark.parametrize("cls", [DoubleHeadROIHeads, DoubleHeadExtROIHeads])
def test_no_layer_answers_what_nobody_asked(cls):
    heads, calls = make(cls), []
    for name, layer in heads.named_modules():
        if name.endswith(("cls_score", "bbox_pred")):
            layer.register_forward_hook(lambda _module, _args, _output, name=name: calls.append(name))
    heads.run_head(features(), BOXES)
    regress = "regression_predictor" if cls is DoubleHeadExtROIHeads else "box_predictor"
    assert calls == ["box_predictor.cls_score", f"{regress}.bbox_pred"]


class Whole(FastRCNNPredictor):
    """A predictor that only knows how to say everything at once."""

    classify, regress = BoxPredictor.classify, BoxPredictor.regress

    def forward(self, box_features):
        return self.cls_score(box_features) + 1, self.bbox_pred(box_features) - 1


def test_a_predictor_without_parts_is_asked_twice():
    options = {"box_coder": BoxCoder((10, 10, 5, 5)), "class_loss": SoftmaxCrossEntropy, "box_loss": L1Loss()}
    parts, whole = make(), make(box_predictor=partial(Whole, **options))
    logits, deltas = parts.run_head(features(), BOXES)
    torch.testing.assert_close(whole.run_head(features(), BOXES), (logits + 1, deltas - 1))


@pytest.mark.parametrize("cls", [DoubleHeadROIHeads, DoubleHeadExtROIHeads])
@pytest.mark.parametrize(
    ("boxes", "proposals"),
    [([[[8.0, 8.0, 40.0, 40.0]], []], [*BOXES, BOXES[0][:0]]), ([[], []], [torch.zeros(0, 4)] * 2)],
)
def test_every_parameter_has_a_gradient_whatever_the_batch_holds(cls, boxes, proposals):
    heads = make(cls, regression_head=partial(ResidualBoxHead, num_blocks=1, width=16, norm="GN"))
    _, losses = heads(*batch(boxes, proposals))
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())


def test_hard_examples_leave_the_norms_of_both_heads_alone():
    heads = make(sampler=OHEMSampler(batch_size_per_image=2, positive_fraction=0.5))
    maps, found, given = batch([[[8.0, 8.0, 40.0, 40.0]]])
    heads.select_training_samples(maps, found, given)
    norms = [m for m in heads.regression_head.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.num_batches_tracked == 0 and norm.training for norm in norms)


def test_fused_scores_by_hand():
    heads = make(DoubleHeadExtROIHeads).eval()
    for predictor, probability in ((heads.box_predictor, 0.5), (heads.regression_predictor, 0.25)):
        predictor.cls_score.weight.data.zero_()
        share = torch.tensor([probability, 0.9 * (1 - probability), 0.1 * (1 - probability)])
        predictor.cls_score.bias.data.copy_(share.log())
    (scored,) = heads.predict(features(), BOXES, [(64, 64)])
    # Class 0: 0.5 + 0.25 * 0.5; class 1: 0.45 + 0.675 * 0.55.
    torch.testing.assert_close(scored.scores, torch.tensor([[0.625, 0.82125]] * 2))


def test_the_extension_shares_the_losses_between_the_tasks():
    given = batch([[[8.0, 8.0, 40.0, 40.0]]])
    focused = make(DoubleHeadExtROIHeads, classification_focus=1.0, regression_focus=1.0).eval()(*given)[1]
    shared = make(DoubleHeadExtROIHeads).eval()(*given)[1]
    assert focused["loss_classifier_unfocused"] == focused["loss_box_reg_unfocused"] == 0
    torch.testing.assert_close(shared["loss_classifier"], 0.7 * focused["loss_classifier"])
    torch.testing.assert_close(shared["loss_box_reg"], 0.8 * focused["loss_box_reg"])
    assert shared["loss_classifier_unfocused"] > 0
    assert shared["loss_box_reg_unfocused"] > 0


def test_the_extension_weighs_its_heads_apart():
    given = batch([[[8.0, 8.0, 40.0, 40.0]]])
    plain = make(DoubleHeadExtROIHeads, classification_focus=0.5, regression_focus=0.5).eval()(*given)[1]
    paper = make(DoubleHeadExtROIHeads, classification_weight=2.0, regression_weight=2.5).eval()(*given)[1]
    # The authors' code has the four factors 1.4, 2.0, 0.5 and 0.6: 2 x 0.7, 2.5 x 0.8, 2.5 x 0.2 and 2 x 0.3.
    factors = {"classifier": 1.4, "box_reg": 2.0, "classifier_unfocused": 0.5, "box_reg_unfocused": 0.6}
    for name, factor in factors.items():
        torch.testing.assert_close(paper[f"loss_{name}"], plain[f"loss_{name}"] * factor / 0.5)


def test_the_paper_conv_head():
    with torch.device("meta"):
        head = ResidualBoxHead(256, 7)
    assert head.out_channels == 1024
    convs = [m.weight.shape[:3] for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convs[:3] == [(256, 256, 3), (1024, 256, 1), (1024, 256, 1)]  # widened on the long way and on the short one
    assert convs[3:] == [(256, 1024, 1), (256, 256, 3), (1024, 256, 1)] * 4


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (DoubleHeadROIHeads, {"box_head": partial(TwoMLPHead, width=8)}, "must be equally wide, got 8 and 16"),
        (DoubleHeadROIHeads, {"regression_scale": 0}, "regression_scale must be above 0, got 0"),
        (DoubleHeadExtROIHeads, {"classification_weight": -1}, "classification_weight must be at least 0, got -1"),
        (DoubleHeadExtROIHeads, {"regression_focus": 80}, r"regression_focus must be in \[0, 1\], got 80"),
    ],
)
def test_bad_options_are_refused(cls, options, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **options)


def test_the_eval_path_can_be_exported_also_with_features_of_all_levels():
    heads = make(DoubleHeadExtROIHeads, pooler=partial(GRoIE, resolution=3)).eval()

    class Detect(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = heads

        def forward(self, maps, boxes):
            index = torch.arange(boxes.shape[0])
            found = [Proposals(boxes, torch.zeros_like(boxes[:, 0]), index, index)]
            given = Batch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 64)], [0])
            (detections,), _ = self.heads(maps, found, given)
            return detections.boxes, detections.scores, detections.classes

    module = Detect()
    boxes = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)).sort(dim=1).values * 60
    shapes = ({"p2": None}, {0: torch.export.Dim.DYNAMIC})
    exported = torch.export.export(module, (features(), boxes), dynamic_shapes=shapes, strict=False).module()
    for some in (boxes, boxes[:3] / 2):
        torch.testing.assert_close(exported(features(), some), module(features(), some))
