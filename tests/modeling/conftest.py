from functools import partial

import pytest
import torch

from frcnn.modeling.anchors import GridAnchorGenerator
from frcnn.modeling.backbones.resnet import ResNet
from frcnn.modeling.box_heads import TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.cascade import CascadeROIHeads, CascadeStage
from frcnn.modeling.detector import FasterRCNN
from frcnn.modeling.losses import BinaryCrossEntropy, L1Loss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.necks.fpn import FPN
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.proposals import TrainTest
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.rpn import RegionProposalNetwork
from frcnn.modeling.rpn_head import ConvRPNHead
from frcnn.modeling.samplers import BalancedPositiveNegativeSampler, OHEMSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, Targets

SAMPLERS = {"random": BalancedPositiveNegativeSampler, "ohem": OHEMSampler}
LEVELS = ("p2", "p3", "p4", "p5")


def _matcher(threshold):
    return IoUMatcher(high_threshold=threshold, low_threshold=threshold, allow_low_quality_matches=False)


def _predictor(weight, class_agnostic=False):
    return partial(
        FastRCNNPredictor,
        box_coder=BoxCoder((weight, weight, weight / 2, weight / 2)),
        class_loss=SoftmaxCrossEntropy,
        box_loss=L1Loss(),
        class_agnostic=class_agnostic,
    )


def _roi_heads(kind, sampler, branches):
    shared = {
        "in_features": LEVELS,
        "pooler": ROIAlign,
        "box_head": partial(TwoMLPHead, width=64),
        "postprocess": Postprocess(nms=NMS(iou_threshold=0.5), score_thresh=0.2),
        "branches": branches,
    }
    if kind == "standard":
        return partial(StandardROIHeads, matcher=_matcher(0.5), sampler=sampler, box_predictor=_predictor(10), **shared)
    stages = [
        CascadeStage(matcher=_matcher(0.5), sampler=sampler, box_predictor=_predictor(10, class_agnostic=True)),
        CascadeStage(matcher=_matcher(0.6), box_predictor=_predictor(20, class_agnostic=True)),
    ]
    return partial(CascadeROIHeads, stages=stages, **shared)


def _tiny_detector(kind, sampler, branches=None, **parts):
    def make_sampler(positive_fraction):
        return SAMPLERS[sampler](batch_size_per_image=32, positive_fraction=positive_fraction)

    rpn = partial(
        RegionProposalNetwork,
        in_features=(*LEVELS, "p6"),
        anchor_generator=partial(
            GridAnchorGenerator, sizes=((8,), (16,), (32,), (64,), (128,)), aspect_ratios=(0.5, 1.0, 2.0)
        ),
        head=ConvRPNHead,
        matcher=IoUMatcher(high_threshold=0.7, low_threshold=0.3, allow_low_quality_matches=True),
        sampler=make_sampler(0.5),
        box_coder=BoxCoder(),
        objectness_loss=BinaryCrossEntropy,
        box_loss=L1Loss(),
        nms=NMS(iou_threshold=0.7),
        pre_nms_top_n=TrainTest(100, 50),
        post_nms_top_n=TrainTest(50, 50),
    )
    parts = {
        "backbone": ResNet(depth=18, norm="GN", freeze_at=0, stem_channels=16),
        "necks": [partial(FPN, out_channels=32)],
        "proposal_generator": rpn,
        "roi_heads": _roi_heads(kind, make_sampler(0.25), branches or {}),
        **parts,
    }
    return FasterRCNN(
        3,
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=(60.0, 60.0, 60.0),
        **parts,
    )


@pytest.fixture
def tiny_detector():
    """(kind: "standard" or "cascade", sampler: "random" or "ohem", branches) -> a small FPN detector of three classes.

    Further keywords take the place of its parts.
    """
    return _tiny_detector


@pytest.fixture
def tiny_batch():
    """Two images of different size: a bright square of class 1 on noise, and noise; files are twice as large."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 80, (3, 96, 128), generator=generator, dtype=torch.uint8)
    second = torch.randint(0, 80, (3, 80, 96), generator=generator, dtype=torch.uint8)
    first[:, 10:60, 20:80] = 220
    targets = [
        Targets(torch.tensor([[20.0, 10.0, 80.0, 60.0]]), torch.tensor([1])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    return Batch([first, second], [(96, 128), (80, 96)], [(192, 256), (160, 192)], [1, 2], targets)
