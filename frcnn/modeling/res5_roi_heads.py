"""C4 detectors: ResNet's last stage is the box head (Faster R-CNN with ResNet, He et al., appendix A)."""

from __future__ import annotations

import functools

from torch import Tensor

from frcnn.config import Factory
from frcnn.modeling.backbones.resnet import Depth, ResNetStage
from frcnn.modeling.layers import NormName
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.roles import (
    BOX_HEADS,
    ROI_HEADS,
    BoxHead,
    BoxPredictor,
    FeatureShapes,
    Matcher,
    ROIBranch,
    ROIPooler,
    Sampler,
)
from frcnn.structures import ROIShape


@BOX_HEADS.register
class Res5Head(BoxHead):
    """The last stage of a ResNet, and the mean over what is left of the box.

    Args:
        depth: which ResNet it is the last stage of.
        norm: FrozenBN, BN, SyncBN, GN or LN.
        norm_eps: added to the norms' variance.
        stride_in_1x1: whether a bottleneck's first 1x1 convolution makes the step (detectron2's weights) or its 3x3
            (torchvision's weights).
        stem_channels: width of the stem of the ResNet, from which the width of the stage follows.
    """

    def __init__(
        self,
        in_channels: int,
        resolution: int,
        *,
        depth: Depth = 50,
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-5,
        stride_in_1x1: bool = False,
        stem_channels: int = 64,
    ) -> None:
        super().__init__()
        self.res5 = ResNetStage(
            depth, 5, stem_channels=stem_channels, norm=norm, norm_eps=norm_eps, stride_in_1x1=stride_in_1x1
        )
        if self.res5.in_channels != in_channels:
            raise ValueError(
                f"res5 of ResNet-{depth} reads {self.res5.in_channels} channels, but {in_channels} are pooled: "
                "pool from res4 of a backbone with the same depth and stem_channels"
            )
        self.out_channels = self.res5.out_channels
        self.shared_shape = ROIShape(self.out_channels, -(-resolution // 2))

    def forward(self, roi_features: Tensor) -> Tensor:
        """[R, C, h, w] -> [R, out_channels]."""
        return self.shared_map(roi_features).mean(dim=(2, 3))

    def shared_map(self, roi_features: Tensor) -> Tensor:
        """[R, C, h, w] -> [R, out_channels, h / 2, w / 2]."""
        return self.res5(roi_features)


@ROI_HEADS.register
class Res5ROIHeads(StandardROIHeads):
    """The ROI heads of C4 detectors: standard ones, with `Res5Head` on boxes pooled from res4 (14 x 14 as a rule).

    Args:
        in_features: the map that is pooled from: res4.
        matcher: decides which ground truth a proposal stands for.
        sampler: decides which proposals are trained on.
        pooler: features of a fixed size for every box.
        box_predictor: from the vector to classes and boxes.
        postprocess: from scored boxes to detections.
        branches: what follows the boxes, by name: masks, keypoints; without a pooler of their own they read res5.
        append_gt: whether ground truths are added to the proposals in training.
        depth: which ResNet the box head is the last stage of.
        norm: FrozenBN, BN, SyncBN, GN or LN.
        norm_eps: added to the norms' variance.
        stride_in_1x1: whether a bottleneck's first 1x1 convolution makes the step (detectron2's weights) or its 3x3
            (torchvision's weights).
        stem_channels: width of the stem of the ResNet, from which the width of the stage follows.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: tuple[str, ...],
        matcher: Matcher,
        sampler: Sampler,
        pooler: Factory[ROIPooler],
        box_predictor: Factory[BoxPredictor],
        postprocess: Postprocess,
        branches: dict[str, Factory[ROIBranch]],
        append_gt: bool = True,
        depth: Depth = 50,
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-5,
        stride_in_1x1: bool = False,
        stem_channels: int = 64,
    ) -> None:
        res5: Factory[BoxHead] = functools.partial(
            Res5Head,
            depth=depth,
            norm=norm,
            norm_eps=norm_eps,
            stride_in_1x1=stride_in_1x1,
            stem_channels=stem_channels,
        )
        super().__init__(
            feature_shapes,
            num_classes,
            in_features=in_features,
            matcher=matcher,
            sampler=sampler,
            pooler=pooler,
            box_head=res5,
            box_predictor=box_predictor,
            postprocess=postprocess,
            branches=branches,
            append_gt=append_gt,
        )
