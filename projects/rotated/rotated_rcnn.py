"""Rotated R-CNN: the second stage and the detector. Pools rotated proposals, classifies them and moves all five numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.config import Factory, import_file
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.detector import FasterRCNN
from frcnn.modeling.poolers import LevelAssignment, MultiLevelPooler
from frcnn.modeling.postprocess import Postprocess, SelectDetections
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.roles import (
    BOX_PREDICTORS,
    DETECTORS,
    ROI_HEADS,
    ROI_POOLERS,
    BoxHead,
    BoxLoss,
    BoxPredictor,
    ClassLoss,
    Features,
    FeatureShapes,
    Matcher,
    ROIPooler,
    Sampler,
)
from frcnn.structures import Batch, Detections, ScoredBoxes

ops = import_file(Path(__file__).with_name("rotated_boxes.py"))
RotatedBoxCoder = ops.RotatedBoxCoder


@ROI_POOLERS.register
class RotatedROIAlign(MultiLevelPooler):
    """Averages bilinear samples in each cell of a rotated box; the features are turned with the box.

    https://arxiv.org/abs/1703.01086, section 3.5, with the samples of Mask R-CNN. At angle 0 it is ROIAlign with the same
    sampling ratio, aligned.

    Args:
        resolution: cells along each side of the output.
        sampling_ratio: samples along each side of a cell.
        canonical_size: root of the area in pixels of the box that belongs to the canonical level.
        canonical_level: log2 of the stride that this box is pooled at.
    """

    box_dim = 5

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        resolution: int = 7,
        sampling_ratio: int = 2,
        canonical_size: float = 224.0,
        canonical_level: int = 4,
    ) -> None:
        super().__init__(
            feature_shapes,
            resolution=resolution,
            canonical_size=canonical_size,
            canonical_level=canonical_level,
            level_epsilon="inside_log",
        )
        if sampling_ratio < 1:
            raise ValueError(f"sampling_ratio must be at least 1, got {sampling_ratio}")
        self.sampling_ratio = sampling_ratio
        self.assign_levels = RotatedLevelAssignment(
            self.strides, canonical_size=canonical_size, canonical_level=canonical_level, level_epsilon="inside_log"
        )

    def pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        """feature [B, C, H, W], rois [n, 6] (image index, box in image pixels) -> [n, C, resolution, resolution]."""
        points = self._sampling_points(rois[:, 1:], scale)  # [n, P, P, 2], P samples along a side
        size = points.new_tensor([feature.shape[3], feature.shape[2]])  # W, H
        # ROIAlign's border: up to one pixel outside a sample takes the value of the edge, further out it is 0.
        inside = ((points >= -1) & (points <= size)).all(dim=-1)  # [n, P, P]
        grid = 2 * points / (size - 1).clamp(min=1) - 1
        image = rois[:, 0].long()
        index_per_image = [torch.where(image == number)[0] for number in range(len(feature))]
        # The boxes of an image are one tall grid, so that its map is not copied for each of them.
        sampled_per_image = [
            F.grid_sample(
                feature[number : number + 1], grid[index].flatten(0, 1)[None], padding_mode="border", align_corners=True
            )[0].unflatten(1, (len(index), grid.shape[1]))  # [C, n, P, P]
            for number, index in enumerate(index_per_image)
        ]
        index = torch.cat(index_per_image)
        sampled = torch.cat(sampled_per_image, dim=1).transpose(0, 1) * inside[index, None]  # [n, C, P, P]
        return F.avg_pool2d(sampled, self.sampling_ratio)[index.argsort()]

    def _sampling_points(self, boxes: Tensor, scale: float) -> Tensor:
        """[n, 5] -> [n, P, P, 2]: x and y of each sample in pixels of the feature map, whose centres are whole numbers."""
        count = self.resolution * self.sampling_ratio
        along = (torch.arange(count, device=boxes.device) + 0.5) / count - 0.5  # [P], in parts of a side
        center, sides, angle = boxes[:, :2] * scale - 0.5, boxes[:, 2:4] * scale, torch.deg2rad(boxes[:, 4])
        u = along[None, None, :] * sides[:, 0, None, None]  # [n, 1, P]
        v = along[None, :, None] * sides[:, 1, None, None]  # [n, P, 1]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        return torch.stack((u * cos + v * sin, v * cos - u * sin), dim=-1) + center[:, None, None]


class RotatedLevelAssignment(LevelAssignment):
    """Which level each rotated box is pooled from, by its area."""

    def forward(self, boxes: Tensor) -> Tensor:
        half = boxes[:, 2:4] / 2
        return super().forward(torch.cat((-half, half), dim=1))


@BOX_PREDICTORS.register
class RotatedPredictor(FastRCNNPredictor):
    """Two linear layers side by side: classes, and the rotated box of each class.

    Args:
        box_coder: how deltas describe rotated boxes.
        class_loss: classification loss; it also turns logits into scores.
        box_loss: regression loss, of positives only, one that compares deltas.
        class_agnostic: one box for all classes instead of one each.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        box_coder: RotatedBoxCoder,
        class_loss: Factory[ClassLoss],
        box_loss: BoxLoss,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            num_classes,
            box_coder=box_coder,
            class_loss=class_loss,
            box_loss=box_loss,
            class_agnostic=class_agnostic,
        )


@ROI_HEADS.register
class RotatedROIHeads(StandardROIHeads):
    """Pools rotated proposals from the feature maps, classifies them and moves their boxes, once.

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        matcher: decides which ground truth a proposal stands for; RotatedIoUMatcher.
        sampler: decides which proposals are trained on.
        pooler: features of a fixed size for every box; RotatedROIAlign.
        box_head: from pooled features to a vector.
        box_predictor: from the vector to classes and boxes; RotatedPredictor.
        postprocess: from scored boxes to detections, by RotatedNMS.
        append_gt: whether ground truths are added to the proposals in training.
    """

    box_dim = 5

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: tuple[str, ...],
        matcher: Matcher,
        sampler: Sampler,
        pooler: Factory[ROIPooler],
        box_head: Factory[BoxHead],
        box_predictor: Factory[BoxPredictor],
        postprocess: Postprocess,
        append_gt: bool = True,
    ) -> None:
        super().__init__(
            feature_shapes,
            num_classes,
            in_features=in_features,
            matcher=matcher,
            sampler=sampler,
            pooler=pooler,
            box_head=box_head,
            box_predictor=box_predictor,
            postprocess=postprocess,
            branches={},
            append_gt=append_gt,
        )
        self.postprocess = SelectRotatedDetections(postprocess)

    def predict(
        self, features: Features, boxes_per_image: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Scores of given boxes [r, 5]; only boxes that are hardly turned are clipped to the image (h, w)."""
        class_logits, deltas = self.run_head(features, boxes_per_image)
        counts = [len(boxes) for boxes in boxes_per_image]
        scored = map(self.box_predictor.decode, class_logits.split(counts), deltas.split(counts), boxes_per_image)
        return [replace(s, boxes=ops.clip_straight(s.boxes, size)) for s, size in zip(scored, image_sizes, strict=True)]


class SelectRotatedDetections(SelectDetections):
    """Chooses the detections of one image from rotated boxes [r, K, 5] and scores [r, K]."""

    def forward(self, scored: ScoredBoxes) -> Detections:
        row, classes = torch.where(scored.scores > self.score_thresh)  # [n] each
        boxes, scores = scored.boxes[row, classes], scored.scores[row, classes]
        usable = ops.large_rotated_mask(boxes, self.min_size, inclusive=True) & boxes.isfinite().all(dim=1)
        row, classes, boxes, scores = row[usable], classes[usable], boxes[usable], scores[usable]
        index, scores = self.nms(boxes, scores, classes)
        index, scores = index[: self.detections_per_image], scores[: self.detections_per_image]
        return Detections(boxes[index], scores, classes[index], row[index])


@DETECTORS.register
class RotatedRCNN(FasterRCNN):
    """Faster R-CNN whose proposals and detections are rotated boxes, cx cy w h angle.

    Args:
        clip_detections: whether detections that are hardly turned are clipped to the original image, and empty ones
            dropped; a turned box cannot be clipped and stay a rectangle.
    """

    box_dim = 5

    @property
    def fields_to_train(self) -> frozenset[str]:
        return super().fields_to_train | {ops.ROTATED_BOXES}

    def to_original_size(
        self, detections: Detections, image_size: tuple[int, int], original_size: tuple[int, int]
    ) -> Detections:
        """Scales boxes from the image the network saw, (h, w), to the original; each axis by itself."""
        scale_y, scale_x = (original / seen for original, seen in zip(original_size, image_size, strict=True))
        boxes = ops.scale_rotated(detections.boxes, scale_x, scale_y)
        if not self.clip_detections:
            return replace(detections, boxes=boxes)
        boxes = ops.clip_straight(boxes, original_size)
        return replace(detections, boxes=boxes).select(ops.large_rotated_mask(boxes))

    def predict_branches(self, batch: Batch, detections: Sequence[Detections]) -> list[Detections]:
        """The same detections: there are no branches behind rotated boxes."""
        return list(detections)
