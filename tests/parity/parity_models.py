"""Our detectors as torchvision and detectron2 build theirs, in plain Python: what YAML says elsewhere."""

from __future__ import annotations

from functools import partial

from frcnn.modeling.anchors import GridAnchorGenerator
from frcnn.modeling.backbones import MobileNetV3, ResNet
from frcnn.modeling.box_heads import ConvBoxHead, TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.branches import KeypointBranch, MaskBranch
from frcnn.modeling.cascade import CascadeROIHeads, CascadeStage
from frcnn.modeling.detector import FasterRCNN
from frcnn.modeling.losses import BinaryCrossEntropy, L1Loss, SmoothL1Loss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.necks import FPN
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.proposals import TrainTest
from frcnn.modeling.res5_roi_heads import Res5ROIHeads
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.roles import Sampler
from frcnn.modeling.rpn import RegionProposalNetwork
from frcnn.modeling.rpn_head import ConvRPNHead
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import BACKGROUND_LABEL, POSITIVE_LABEL

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class FirstSampler(Sampler):
    """The first positives and the first negatives: a balanced sampler without chance."""

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__()
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def forward(self, matches, hardness, generator):
        positive = (matches.labels == POSITIVE_LABEL).nonzero().squeeze(1)
        positive = positive[: int(self.batch_size_per_image * self.positive_fraction)]
        negative = (matches.labels == BACKGROUND_LABEL).nonzero().squeeze(1)
        return positive, negative[: self.batch_size_per_image - len(positive)]


def torchvision_detector(
    *,
    backbone,
    neck,
    num_levels: int,
    sizes,
    num_convs: int = 1,
    box_head=None,
    rpn_score_thresh: float = 0.0,
    test_pre_nms: int = 1000,
    test_post_nms: int = 300,
    num_classes: int = 90,
    branches=None,
) -> FasterRCNN:
    """The options of configs/_base_/compat_torchvision.yaml, for images that torchvision's transform has normalised."""
    shapes = neck(backbone.feature_shapes).feature_shapes
    levels = tuple(shapes)
    return FasterRCNN(
        num_classes,
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
        backbone=backbone,
        necks=[neck],
        proposal_generator=partial(
            RegionProposalNetwork,
            in_features=levels,
            anchor_generator=partial(
                GridAnchorGenerator,
                sizes=sizes,
                aspect_ratios=(0.5, 1.0, 2.0),
                round_cells=True,
                stride="padded_size",
                order="ratio",
            ),
            head=partial(ConvRPNHead, num_convs=num_convs),
            matcher=IoUMatcher(high_threshold=0.7, low_threshold=0.3, allow_low_quality_matches=True),
            sampler=FirstSampler(256, 0.5),
            box_coder=BoxCoder(),
            objectness_loss=BinaryCrossEntropy,
            box_loss=SmoothL1Loss(beta=1 / 9),
            nms=NMS(iou_threshold=0.7),
            pre_nms_top_n=TrainTest(train=2000, test=test_pre_nms),
            post_nms_top_n=TrainTest(train=2000, test=test_post_nms),
            loss_normalizer="sampled",
            min_size=1e-3,
            min_size_inclusive=True,
            score_thresh=rpn_score_thresh,
            nms_on="probability",
        ),
        roi_heads=partial(
            StandardROIHeads,
            in_features=levels[:num_levels],
            matcher=IoUMatcher(high_threshold=0.5, low_threshold=0.5),
            sampler=FirstSampler(512, 0.25),
            pooler=partial(ROIAlign, resolution=7, sampling_ratio=2, aligned=False, level_epsilon="outside_log"),
            box_head=box_head or partial(TwoMLPHead, init="pytorch"),
            box_predictor=partial(
                FastRCNNPredictor,
                box_coder=BoxCoder(BOX_WEIGHTS),
                class_loss=SoftmaxCrossEntropy,
                box_loss=SmoothL1Loss(beta=1 / 9),
                init="pytorch",
            ),
            postprocess=Postprocess(nms=NMS(iou_threshold=0.5), min_size=1e-2),
            branches=branches or {},
        ),
        clip_detections=False,
    )


def fasterrcnn_resnet50_fpn(norm: str, norm_eps: float = 1e-5, **options) -> FasterRCNN:
    backbone = ResNet(depth=50, norm=norm, norm_eps=norm_eps, freeze_at=0)
    return torchvision_detector(
        backbone=backbone, neck=FPN, num_levels=4, sizes=((32,), (64,), (128,), (256,), (512,)), **options
    )


def fasterrcnn_resnet50_fpn_v2(norm: str, **options) -> FasterRCNN:
    return torchvision_detector(
        backbone=ResNet(depth=50, norm=norm, freeze_at=0),
        neck=partial(FPN, norm="BN"),
        num_levels=4,
        sizes=((32,), (64,), (128,), (256,), (512,)),
        num_convs=2,
        box_head=partial(ConvBoxHead, norm="BN"),
        **options,
    )


def torchvision_pooler():
    """Of masks and keypoints."""
    return {
        "in_features": ("p2", "p3", "p4", "p5"),
        "pooler": partial(ROIAlign, resolution=14, sampling_ratio=2, aligned=False, level_epsilon="outside_log"),
    }


def torchvision_masks(**options):
    return {"mask": partial(MaskBranch, mask_targets="soft", init="kaiming", **torchvision_pooler(), **options)}


def maskrcnn_resnet50_fpn(norm: str, **options) -> FasterRCNN:
    return fasterrcnn_resnet50_fpn(norm, branches=torchvision_masks(), **options)


def maskrcnn_resnet50_fpn_v2(norm: str, **options) -> FasterRCNN:
    return fasterrcnn_resnet50_fpn_v2(norm, branches=torchvision_masks(norm="BN"), **options)


def keypointrcnn_resnet50_fpn(norm: str, **options) -> FasterRCNN:
    branches = {"keypoint": partial(KeypointBranch, score="logit", **torchvision_pooler())}
    return fasterrcnn_resnet50_fpn(norm, num_classes=1, branches=branches, **options)


def fasterrcnn_mobilenet_v3_large_fpn(norm: str, **options) -> FasterRCNN:
    return torchvision_detector(
        backbone=MobileNetV3(norm=norm, norm_eps=1e-5, out_features=("c4", "c5")),
        neck=FPN,
        num_levels=2,
        sizes=((32, 64, 128, 256, 512),) * 3,
        rpn_score_thresh=0.05,
        **options,
    )


def fasterrcnn_mobilenet_v3_large_320_fpn(norm: str) -> FasterRCNN:
    return fasterrcnn_mobilenet_v3_large_fpn(norm, test_pre_nms=150, test_post_nms=150)


def detectron2_detector(
    num_classes: int,
    *,
    backbone,
    necks,
    in_features,
    sizes,
    roi_heads,
    box_head,
    pooled,
    pre_nms,
    post_nms,
    branches=None,
    **options,
) -> FasterRCNN:
    """detectron2's defaults, with samplers that take every candidate, as for the golden outputs."""
    return FasterRCNN(
        num_classes,
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(1.0, 1.0, 1.0),
        backbone=backbone,
        necks=necks,
        proposal_generator=partial(
            RegionProposalNetwork,
            in_features=in_features,
            anchor_generator=partial(GridAnchorGenerator, sizes=sizes, aspect_ratios=(0.5, 1.0, 2.0)),
            head=ConvRPNHead,
            matcher=IoUMatcher(high_threshold=0.7, low_threshold=0.3, allow_low_quality_matches=True),
            sampler=FirstSampler(1_000_000, 0.5),
            box_coder=BoxCoder(),
            objectness_loss=BinaryCrossEntropy,
            box_loss=L1Loss(),
            nms=NMS(iou_threshold=0.7),
            pre_nms_top_n=pre_nms,
            post_nms_top_n=post_nms,
        ),
        roi_heads=partial(
            roi_heads,
            in_features=pooled,
            pooler=partial(ROIAlign, resolution=14 if roi_heads is Res5ROIHeads else 7),
            postprocess=Postprocess(nms=NMS(iou_threshold=0.5)),
            branches=branches or {},
            **box_head,
            **options,
        ),
    )


def detectron2_predictor(weights=BOX_WEIGHTS, class_agnostic=False):
    return partial(
        FastRCNNPredictor,
        box_coder=BoxCoder(weights),
        class_loss=SoftmaxCrossEntropy,
        box_loss=L1Loss(),
        class_agnostic=class_agnostic,
    )


def one_stage_options() -> dict:
    return {
        "matcher": IoUMatcher(high_threshold=0.5, low_threshold=0.5),
        "sampler": FirstSampler(1_000_000, 0.25),
        "box_predictor": detectron2_predictor(),
    }


def detectron2_masks():
    pooler = partial(ROIAlign, resolution=14)
    return {"mask": partial(MaskBranch, in_features=("p2", "p3", "p4", "p5"), pooler=pooler)}


def detectron2_fpn(
    num_classes: int,
    *,
    depth: int = 50,
    backbone=None,
    roi_heads=StandardROIHeads,
    post_nms=1000,
    branches=None,
    **options,
):
    options = options or one_stage_options()
    return detectron2_detector(
        num_classes,
        backbone=backbone or ResNet(depth=depth, stride_in_1x1=True),
        necks=[FPN],
        in_features=("p2", "p3", "p4", "p5", "p6"),
        sizes=((32,), (64,), (128,), (256,), (512,)),
        pre_nms=TrainTest(train=2000, test=1000),
        post_nms=TrainTest(train=post_nms, test=1000),
        pooled=("p2", "p3", "p4", "p5"),
        roi_heads=roi_heads,
        box_head={"box_head": TwoMLPHead},
        branches=branches,
        **options,
    )


def detectron2_mask_fpn(num_classes: int) -> FasterRCNN:
    return detectron2_fpn(num_classes, branches=detectron2_masks())


def detectron2_c4(num_classes: int, **options) -> FasterRCNN:
    return detectron2_detector(
        num_classes,
        backbone=ResNet(depth=50, stride_in_1x1=True, out_features=("res4",)),
        necks=[],
        in_features=("res4",),
        sizes=((32, 64, 128, 256, 512),),
        pre_nms=TrainTest(train=12000, test=6000),
        post_nms=TrainTest(train=2000, test=1000),
        pooled=("res4",),
        roi_heads=Res5ROIHeads,
        box_head={"depth": 50, "stride_in_1x1": True},
        **one_stage_options(),
        **options,
    )


def detectron2_mask_c4(num_classes: int) -> FasterRCNN:
    return detectron2_c4(num_classes, branches={"mask": partial(MaskBranch, num_convs=0)})


def detectron2_dc5(num_classes: int) -> FasterRCNN:
    return detectron2_detector(
        num_classes,
        backbone=ResNet(depth=50, stride_in_1x1=True, out_features=("res5",), res5_dilation=2),
        necks=[],
        in_features=("res5",),
        sizes=((32, 64, 128, 256, 512),),
        pre_nms=TrainTest(train=12000, test=6000),
        post_nms=TrainTest(train=2000, test=1000),
        pooled=("res5",),
        roi_heads=StandardROIHeads,
        box_head={"box_head": TwoMLPHead},
        **one_stage_options(),
    )


def detectron2_cascade(num_classes: int, branches=None) -> FasterRCNN:
    weights = (BOX_WEIGHTS, (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
    thresholds = (0.5, 0.6, 0.7)
    stages = [
        CascadeStage(
            matcher=IoUMatcher(high_threshold=threshold, low_threshold=threshold),
            box_predictor=detectron2_predictor(stage_weights, class_agnostic=True),
            sampler=FirstSampler(1_000_000, 0.25) if threshold == 0.5 else None,
        )
        for threshold, stage_weights in zip(thresholds, weights, strict=True)
    ]
    return detectron2_fpn(num_classes, roi_heads=CascadeROIHeads, post_nms=2000, branches=branches, stages=stages)


def detectron2_cascade_mask(num_classes: int) -> FasterRCNN:
    return detectron2_cascade(num_classes, branches=detectron2_masks())
