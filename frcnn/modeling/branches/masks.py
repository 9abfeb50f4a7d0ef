"""The mask of every object (Mask R-CNN, https://arxiv.org/abs/1703.06870)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.distributed import mean_count
from frcnn.modeling.branches.instance import InstanceBranch, require_targets
from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.roles import ROI_BRANCHES, Features, FeatureShapes, ROIPooler, SharedFeatures
from frcnn.ops.masks import crop_and_resize
from frcnn.structures import Detections, InstanceMasks, Rois, ROIShape, Targets


@ROI_BRANCHES.register
class MaskBranch(InstanceBranch):
    """Masks of detections: convolutions, twice the resolution, one mask for each class (Mask R-CNN).

    The loss of a positive ROI is the binary cross entropy on the mask of its own class; classes do not compete.

    Args:
        in_features: the maps that are pooled from, fine to coarse; none without a pooler.
        pooler: features of a fixed size for every box; null takes the map that the box head makes (C4 detectors).
        num_convs: how many 3x3 convolutions come before the resolution is doubled.
        conv_channels: width of all layers but the last.
        norm: norm layer behind each 3x3 convolution, or null for none.
        norm_eps: added to the norm's variance.
        class_agnostic: one mask for all classes instead of one each.
        mask_targets: binary cuts what a ROI sees of the mask at one half, with pixels' values at their centres (detectron2);
            soft keeps fractions, with values at the corners (torchvision).
        loss_weight: factor of loss_mask.
        init: normal draws the last layer's weights with standard deviation 0.001 and zeroes its bias (detectron2);
            kaiming draws them by the layer's width and leaves the biases of the last two layers as PyTorch draws them
            (torchvision).
    """

    detection_fields = ("masks",)

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        shared_shape: ROIShape | None,
        *,
        in_features: tuple[str, ...] = (),
        pooler: Factory[ROIPooler] | None = None,
        num_convs: int = 4,
        conv_channels: int = 256,
        norm: NormName | None = None,
        norm_eps: float = 1e-5,
        class_agnostic: bool = False,
        mask_targets: Literal["binary", "soft"] = "binary",
        loss_weight: float = 1.0,
        init: Literal["normal", "kaiming"] = "normal",
    ) -> None:
        super().__init__(
            feature_shapes,
            num_classes,
            shared_shape,
            in_features=in_features,
            pooler=pooler,
            loss_weight=loss_weight,
        )
        self.mask_targets = mask_targets
        self.head = MaskHead(
            self.roi_shape.channels,
            1 if class_agnostic else num_classes,
            num_convs=num_convs,
            conv_channels=conv_channels,
            norm=norm,
            norm_eps=norm_eps,
            init=init,
        )

    def forward(
        self,
        features: Features,
        rois: Sequence[Rois],
        targets: Sequence[Targets],
        shared: SharedFeatures | None = None,
    ) -> dict[str, Tensor]:
        """Computes the loss of the ROIs that stand for an object.

        Args:
            features: maps [B, C, H, W].
            rois: B sampled ROIs.
            targets: B Targets with masks.
            shared: gives the box head's map of boxes, for a branch without a pooler.

        Returns:
            loss_mask: the mean over positive ROIs and pixels; 0 with a gradient without any.

        Raises:
            UserError: the data set has no masks.
        """
        require_targets(self, targets)
        positives = self.positives(rois)
        logits = self.head(self.roi_features(features, [p.boxes for p in positives], shared))  # [P, K or 1, M, M]
        gt_masks = torch.cat(
            [
                self.gt_masks(t.masks, p, logits.shape[-1])
                for t, p in zip(targets, positives, strict=True)
                if t.masks is not None
            ]
        )  # [P, M, M]
        chosen = of_classes(logits, torch.cat([p.classes for p in positives])).float()  # [P, M, M]
        losses = F.binary_cross_entropy_with_logits(chosen, gt_masks, reduction="none").mean(dim=(1, 2))  # [P]
        num_positive = torch.tensor(len(losses), device=losses.device)
        return {"loss_mask": losses.sum() / mean_count(num_positive, self.training) * self.loss_weight}

    def gt_masks(self, masks: InstanceMasks, positives: Rois, resolution: int) -> Tensor:
        """What the positives [p] of one image should see of their objects: [p, resolution, resolution] in 0..1."""
        binary = self.mask_targets == "binary"
        seen = crop_and_resize(masks, positives.gt_index, positives.boxes, resolution, aligned=binary)
        return (seen >= 0.5).float() if binary else seen

    def predict(
        self, features: Features, detections: Sequence[Detections], shared: SharedFeatures | None = None
    ) -> list[Detections]:
        """Adds to every detection the mask of its class.

        Args:
            features: maps [B, C, H, W].
            detections: B Detections in the pixels of the image the network sees.
            shared: gives the box head's map of boxes, for a branch without a pooler.

        Returns:
            B Detections with `masks` [D, M, M].
        """
        logits = self.head(self.roi_features(features, [d.boxes for d in detections], shared))  # [sum D, K or 1, M, M]
        masks = of_classes(logits, torch.cat([d.classes for d in detections])).float().sigmoid()  # [sum D, M, M]
        per_image = masks.split([d.boxes.shape[0] for d in detections])
        return [replace(d, masks=m) for d, m in zip(detections, per_image, strict=True)]


class MaskHead(nn.Module):
    """[R, C, h, w] -> mask logits [R, num_masks, 2h, 2w].

    Args:
        in_channels: width of the input.
        num_masks: of the output: one for each class, or 1.
        num_convs: how many 3x3 convolutions come before the resolution is doubled.
        conv_channels: width of all layers but the last.
        norm: norm layer behind each 3x3 convolution, or None.
        norm_eps: added to the norm's variance.
        init: of the last layers, see `MaskBranch`.
    """

    def __init__(
        self,
        in_channels: int,
        num_masks: int,
        *,
        num_convs: int,
        conv_channels: int,
        norm: NormName | None,
        norm_eps: float,
        init: Literal["normal", "kaiming"],
    ) -> None:
        super().__init__()
        if num_convs < 0 or conv_channels < 1:
            raise ValueError(
                f"num_convs must be 0 or more and conv_channels 1 or more, got {num_convs} and {conv_channels}"
            )
        self.convs = nn.Sequential()
        for _ in range(num_convs):
            conv = ConvNorm(in_channels, conv_channels, 3, norm=norm, norm_eps=norm_eps, relu=True)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.convs.append(conv)
            in_channels = conv_channels
        self.deconv = nn.ConvTranspose2d(in_channels, conv_channels, kernel_size=2, stride=2)
        self.predictor = nn.Conv2d(conv_channels, num_masks, kernel_size=1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        if init == "normal":
            nn.init.normal_(self.predictor.weight, std=0.001)
            for layer in (self.deconv, self.predictor):
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        else:
            nn.init.kaiming_normal_(self.predictor.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, roi_features: Tensor) -> Tensor:
        return self.predictor(F.relu(self.deconv(self.convs(roi_features))))


def of_classes(logits: Tensor, classes: Tensor) -> Tensor:
    """The map of its own class for every row, or the only one there is.

    Args:
        logits: [R, K or 1, M, M].
        classes: [R] in 0..K-1.

    Returns:
        [R, M, M].
    """
    column = classes.clamp(max=logits.shape[1] - 1)
    return logits[torch.arange(logits.shape[0], device=logits.device), column]
