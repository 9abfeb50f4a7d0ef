"""IoUAwareROIHeads by hand."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from frcnn.config import import_file
from frcnn.experiment import read_config
from frcnn.modeling.box_heads import TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.losses import L1Loss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.samplers import BalancedPositiveNegativeSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, FeatureShape, Proposals, Rois, Targets

PROJECT = Path(__file__).parents[1]
K = 2
SHAPES = {"p2": FeatureShape(4, 4)}
BOXES = torch.tensor([[0.0, 0, 20, 20], [8, 8, 40, 40], [30, 30, 60, 60]])


@pytest.fixture(scope="module")
def project():
    return import_file(PROJECT / "iou_aware_head.py")


def make_heads(cls, **options):
    torch.manual_seed(0)
    return cls(
        SHAPES,
        K,
        in_features=("p2",),
        matcher=IoUMatcher(high_threshold=0.5, low_threshold=0.5, allow_low_quality_matches=False),
        sampler=BalancedPositiveNegativeSampler(batch_size_per_image=8, positive_fraction=0.25),
        pooler=partial(ROIAlign, resolution=2),
        box_head=partial(TwoMLPHead, width=8),
        box_predictor=partial(
            FastRCNNPredictor, box_coder=BoxCoder((10, 10, 5, 5)), class_loss=SoftmaxCrossEntropy, box_loss=L1Loss()
        ),
        postprocess=Postprocess(nms=NMS(iou_threshold=0.5)),
        branches={},
        **options,
    )


def features():
    return {"p2": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))}


def test_the_loss_compares_the_logit_of_the_true_class_with_the_iou_of_its_box(project):
    heads = make_heads(project.IoUAwareROIHeads, iou_loss_weight=3.0)
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0]])
    rois = Rois(gt_boxes, torch.tensor([1, 0, K]), gt_boxes, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    decoded = torch.zeros(3, K, 4)
    decoded[0, 1] = torch.tensor([0.0, 0, 5, 10])  # IoU 0.5 with the object
    decoded[1, 0] = torch.tensor([0.0, 0, 10, 10])  # IoU 1
    logits = torch.zeros(3, K)
    logits[1, 0] = 2.0
    # Cross entropies: of 0.5 with 0.5, ln 2; of sigmoid(2) with 1, ln(1 + e^-2); the third is background.
    expected = 3 * (math.log(2) + math.log1p(math.exp(-2))) / 2
    assert float(heads.iou_loss(logits, decoded, rois)) == pytest.approx(expected)


def test_the_score_is_a_mean_of_class_and_iou(project):
    standard = make_heads(StandardROIHeads).eval()
    heads = make_heads(project.IoUAwareROIHeads, class_power=0.5).eval()
    heads.load_state_dict(standard.state_dict(), strict=False)
    torch.nn.init.zeros_(heads.iou_pred.weight)  # the IoU is then the sigmoid of the bias
    with torch.no_grad():
        heads.iou_pred.bias.copy_(torch.tensor([0.0, math.log(9)]))  # 0.5 and 0.9
    before, after = (h.predict(features(), [BOXES], [(64, 64)])[0] for h in (standard, heads))
    torch.testing.assert_close(after.scores, (before.scores * torch.tensor([0.5, 0.9])).sqrt())
    torch.testing.assert_close(after.boxes, before.boxes)


def test_a_class_power_of_1_leaves_the_scores_alone(project):
    standard = make_heads(StandardROIHeads).eval()
    heads = make_heads(project.IoUAwareROIHeads, class_power=1.0).eval()
    heads.load_state_dict(standard.state_dict(), strict=False)
    before, after = (h.predict(features(), [BOXES], [(64, 64)])[0] for h in (standard, heads))
    torch.testing.assert_close(after.scores, before.scores)


@pytest.mark.parametrize("objects", [0, 1])
def test_the_losses_are_those_of_standard_roi_heads_and_one_more(project, objects):
    targets = Targets(BOXES[1:2][:objects], torch.tensor([1])[:objects])
    batch = Batch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 64)], [0], [targets])
    index = torch.arange(3)
    proposals = [Proposals(BOXES, torch.zeros(3), index, index)]
    standard, heads = make_heads(StandardROIHeads), make_heads(project.IoUAwareROIHeads)
    heads.load_state_dict(standard.state_dict(), strict=False)
    (_, before), (_, after) = (h(features(), proposals, batch) for h in (standard, heads))
    loss_iou = after.pop("loss_iou")
    assert {name: v.item() for name, v in after.items()} == pytest.approx({n: v.item() for n, v in before.items()})
    loss_iou.backward()
    assert (loss_iou.item() > 0) == bool(objects)
    assert heads.iou_pred.weight.grad.isfinite().all()


def test_options_out_of_range_are_refused(project):
    with pytest.raises(ValueError, match="class_power must be in"):
        make_heads(project.IoUAwareROIHeads, class_power=2.0)
    with pytest.raises(ValueError, match="iou_loss_weight must be at least 0"):
        make_heads(project.IoUAwareROIHeads, iou_loss_weight=-1.0)


def test_the_config_is_right():
    read_config(PROJECT / "configs" / "shapes_iou_aware.yaml").build()
