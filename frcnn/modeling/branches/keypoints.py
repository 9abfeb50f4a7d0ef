"""The keypoints of every object (Mask R-CNN, https://arxiv.org/abs/1703.06870, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.distributed import mean_count
from frcnn.errors import UserError
from frcnn.modeling.branches.instance import InstanceBranch, require_targets
from frcnn.modeling.layers import ConvNorm
from frcnn.modeling.roles import ROI_BRANCHES, Features, FeatureShapes, ROIPooler, SharedFeatures
from frcnn.ops.keypoints import KeypointScore, heatmaps_to_keypoints, keypoints_to_cells
from frcnn.structures import Detections, Rois, ROIShape, Targets


@ROI_BRANCHES.register
class KeypointBranch(InstanceBranch):
    """Keypoints of detections: one heatmap for each, four times the resolution of the pooled box (Mask R-CNN).

    The loss of a keypoint is the cross entropy over the cells of its heatmap. Keypoints count that are labelled, hidden
    ones too, and lie in a positive ROI.

    Args:
        in_features: the maps that are pooled from, fine to coarse; none without a pooler.
        pooler: features of a fixed size for every box; null takes the map that the box head makes (C4 detectors).
        num_keypoints: how many an object has in the data set.
        num_convs: how many 3x3 convolutions come before the resolution is raised.
        conv_channels: their width.
        normalizer_per_image: the loss is a sum, divided by this number for each image; null divides by the keypoints
            that count (torchvision, and detectron2 by default). detectron2's other choice is keypoints x
            batch_size_per_image x positive_fraction, 2176 with its defaults.
        score: of a detected keypoint: probability of its place among the cells (detectron2), or the logit (torchvision).
        loss_weight: factor of loss_keypoint.
    """

    detection_fields = ("keypoints",)

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        shared_shape: ROIShape | None,
        *,
        in_features: tuple[str, ...] = (),
        pooler: Factory[ROIPooler] | None = None,
        num_keypoints: int = 17,
        num_convs: int = 8,
        conv_channels: int = 512,
        normalizer_per_image: float | None = None,
        score: KeypointScore = "probability",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            feature_shapes,
            num_classes,
            shared_shape,
            in_features=in_features,
            pooler=pooler,
            loss_weight=loss_weight,
        )
        if normalizer_per_image is not None and not normalizer_per_image > 0:
            raise ValueError(f"normalizer_per_image must be above 0, or null, got {normalizer_per_image}")
        self.num_keypoints = num_keypoints
        self.normalizer_per_image = normalizer_per_image
        self.score: KeypointScore = score
        self.head = KeypointHead(
            self.roi_shape.channels, num_keypoints, num_convs=num_convs, conv_channels=conv_channels
        )

    def forward(
        self,
        features: Features,
        rois: Sequence[Rois],
        targets: Sequence[Targets],
        shared: SharedFeatures | None = None,
    ) -> dict[str, Tensor]:
        """Computes the loss of the keypoints in positive ROIs.

        Args:
            features: maps [B, C, H, W].
            rois: B sampled ROIs.
            targets: B Targets with keypoints.
            shared: gives the box head's map of boxes, for a branch without a pooler.

        Returns:
            loss_keypoint; 0 with a gradient without a keypoint that counts.

        Raises:
            UserError: the data set has no keypoints, or another number of them.
        """
        gt_keypoints = self.keypoints_of(targets)
        resolution = self.roi_shape.resolution * KeypointHead.upscale
        boxes_per_image, cells, valid = [], [], []
        for positives, keypoints in zip(self.positives(rois), gt_keypoints, strict=True):
            cells_in_image, valid_in_image = keypoints_to_cells(
                keypoints[positives.gt_index], positives.boxes, resolution
            )
            useful = valid_in_image.any(dim=1)  # [p], the head need not look at the other ROIs
            boxes_per_image.append(positives.boxes[useful])
            cells.append(cells_in_image[useful])
            valid.append(valid_in_image[useful])
        heatmaps = self.head(self.roi_features(features, boxes_per_image, shared)).float()  # [P, J, M, M]
        counted = torch.cat(valid)  # [P, J]
        losses = F.cross_entropy(heatmaps.flatten(2)[counted], torch.cat(cells)[counted], reduction="sum")
        if self.normalizer_per_image is None:
            normalizer = mean_count(counted.sum(), self.training)
        else:
            normalizer = losses.new_tensor(self.normalizer_per_image * len(rois))
        return {"loss_keypoint": losses / normalizer * self.loss_weight}

    def keypoints_of(self, targets: Sequence[Targets]) -> list[Tensor]:
        """B x [G, J, 3], checked."""
        require_targets(self, targets)
        keypoints = [t.keypoints for t in targets if t.keypoints is not None]
        wrong = next((k.shape[1] for k in keypoints if k.shape[1] != self.num_keypoints), None)
        if wrong is not None:
            raise UserError(
                f"KeypointBranch has num_keypoints: {self.num_keypoints}, and the objects of the data set have {wrong}"
            )
        return keypoints

    def predict(
        self, features: Features, detections: Sequence[Detections], shared: SharedFeatures | None = None
    ) -> list[Detections]:
        """Adds to every detection its keypoints.

        Args:
            features: maps [B, C, H, W].
            detections: B Detections in the pixels of the image the network sees.
            shared: gives the box head's map of boxes, for a branch without a pooler.

        Returns:
            B Detections with `keypoints` [D, J, 3], in the pixels of that image.
        """
        heatmaps = self.head(self.roi_features(features, [d.boxes for d in detections], shared))  # [sum D, J, M, M]
        per_image = heatmaps.split([len(d) for d in detections])
        return [
            replace(d, keypoints=heatmaps_to_keypoints(h, d.boxes, score=self.score))
            for d, h in zip(detections, per_image, strict=True)
        ]


class KeypointHead(nn.Module):
    """[R, C, h, w] -> heatmap logits [R, num_keypoints, 4h, 4w]: convolutions, a transposed one, and bilinear resizing.

    Args:
        in_channels: width of the input.
        num_keypoints: how many heatmaps.
        num_convs: how many 3x3 convolutions come first.
        conv_channels: their width.
    """

    upscale = 4

    def __init__(self, in_channels: int, num_keypoints: int, *, num_convs: int, conv_channels: int) -> None:
        super().__init__()
        if num_convs < 0 or conv_channels < 1 or num_keypoints < 1:
            raise ValueError(
                "num_convs must be 0 or more, conv_channels and num_keypoints 1 or more, "
                f"got {num_convs}, {conv_channels} and {num_keypoints}"
            )
        self.convs = nn.Sequential()
        for _ in range(num_convs):
            self.convs.append(ConvNorm(in_channels, conv_channels, 3, relu=True))
            in_channels = conv_channels
        self.deconv = nn.ConvTranspose2d(in_channels, num_keypoints, kernel_size=4, stride=2, padding=1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")

    def forward(self, roi_features: Tensor) -> Tensor:
        x = self.deconv(self.convs(roi_features))  # [R, J, 2h, 2w]
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
