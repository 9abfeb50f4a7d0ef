"""ROI poolers: features of a fixed size for boxes of any size, from the level that suits each box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from frcnn.modeling.roles import ROI_POOLERS, Features, FeatureShapes, ROIPooler
from frcnn.ops.boxes import box_area
from frcnn.ops.roi_align import roi_align

LevelEpsilon = Literal["inside_log", "outside_log"]


class LevelAssignment(nn.Module):
    """Which level each box is pooled from: level 4 at 224 px, one level up for twice the size (FPN paper, eq. 1).

    Args:
        strides: L strides of the levels, ascending; of two levels with one stride the first is used.
        canonical_size: side in pixels of the box that belongs to the canonical level.
        canonical_level: log2 of the stride that this box is pooled at.
        level_epsilon: inside_log is floor(4 + log2(s / 224 + 1e-8)), as in detectron2; outside_log is
            floor(4 + log2(s / 224) + 1e-6), as in torchvision.
    """

    levels: Tensor

    def __init__(
        self, strides: Sequence[int], *, canonical_size: float, canonical_level: int, level_epsilon: LevelEpsilon
    ) -> None:
        super().__init__()
        if list(strides) != sorted(strides):
            raise ValueError(f"the strides of the pooled levels must ascend, got {list(strides)}")
        if not canonical_size > 0:
            raise ValueError(f"canonical_size must be above 0 px, got {canonical_size}")
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level
        self.inside, self.outside = (1e-8, 0.0) if level_epsilon == "inside_log" else (0.0, 1e-6)
        self.lowest, self.highest = math.log2(strides[0]), math.log2(strides[-1])
        levels = torch.tensor([math.log2(stride) for stride in strides])
        self.register_buffer("levels", levels, persistent=False)

    def forward(self, boxes: Tensor) -> Tensor:
        """boxes [R, 4] -> index of a level [R] int64 in 0..L-1."""
        side = box_area(boxes).clamp(min=0).sqrt()  # [R]
        relative = torch.log2(side / self.canonical_size + self.inside)
        level = torch.floor(self.canonical_level + relative + self.outside).clamp(self.lowest, self.highest)
        return torch.searchsorted(self.levels, level).clamp(max=len(self.levels) - 1)


class MultiLevelPooler(ROIPooler):
    """Pools every box from its level. Subclasses say how one level is pooled.

    Levels are scaled by their declared strides, never by a ratio of sizes measured on a batch.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        resolution: int,
        canonical_size: float,
        canonical_level: int,
        level_epsilon: LevelEpsilon,
    ) -> None:
        super().__init__()
        widths = {shape.channels for shape in feature_shapes.values()}
        if len(widths) != 1:
            raise ValueError(f"the pooled levels must be equally wide, got {dict(feature_shapes)}")
        if resolution < 1:
            raise ValueError(f"resolution must be at least 1, got {resolution}")
        self.in_features = list(feature_shapes)
        self.strides = [shape.stride for shape in feature_shapes.values()]
        self.out_channels = widths.pop()
        self.resolution = resolution
        self.assign_levels = LevelAssignment(
            self.strides,
            canonical_size=canonical_size,
            canonical_level=canonical_level,
            level_epsilon=level_epsilon,
        )

    def forward(self, features: Features, boxes_per_image: Sequence[Tensor]) -> Tensor:
        """Pools the boxes of a batch.

        Args:
            features: maps [B, C, H, W] by name; only the pooled ones are read.
            boxes_per_image: B x [r, 4].

        Returns:
            [R, C, resolution, resolution], image after image, in the precision of the features.
        """
        maps = [features[name] for name in self.in_features]
        rois = with_image_index(boxes_per_image)  # [R, 5]
        level = self.assign_levels(rois[:, 1:])  # [R]
        index_per_level = [torch.where(level == number)[0] for number in range(len(maps))]
        # In half precision a box far from the origin has no width, and the kernels ask for one type: pool in float32.
        pooled = torch.cat(
            [
                self.pool(feature.float(), rois[index], 1.0 / stride)
                for feature, index, stride in zip(maps, index_per_level, self.strides, strict=True)
            ]
        )  # [R, C, h, w], level after level
        return pooled[torch.argsort(torch.cat(index_per_level))].to(maps[0].dtype)

    def pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        """feature [B, C, H, W], rois [n, 5] (image index, box in image pixels) -> [n, C, resolution, resolution]."""
        raise NotImplementedError(f"{type(self).__name__} must define pool()")


@ROI_POOLERS.register
class ROIAlign(MultiLevelPooler):
    """Averages bilinear samples in each cell, without rounding the box (Mask R-CNN).

    Args:
        resolution: cells along each side of the output.
        sampling_ratio: samples along each side of a cell; 0 takes as many as the cell covers pixels of the feature map.
        aligned: shifts by half a pixel, so that a pixel's value lies at its centre; torchvision's detectors do not.
        canonical_size: side in pixels of the box that belongs to the canonical level.
        canonical_level: log2 of the stride that this box is pooled at.
        level_epsilon: inside_log is floor(4 + log2(s / 224 + 1e-8)), as in detectron2; outside_log is
            floor(4 + log2(s / 224) + 1e-6), as in torchvision.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        resolution: int = 7,
        sampling_ratio: int = 0,
        aligned: bool = True,
        canonical_size: float = 224.0,
        canonical_level: int = 4,
        level_epsilon: LevelEpsilon = "inside_log",
    ) -> None:
        super().__init__(
            feature_shapes,
            resolution=resolution,
            canonical_size=canonical_size,
            canonical_level=canonical_level,
            level_epsilon=level_epsilon,
        )
        if sampling_ratio < 0:
            raise ValueError(f"sampling_ratio must be 0 (adaptive) or more, got {sampling_ratio}")
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        return roi_align(feature, rois, self.resolution, scale, self.sampling_ratio, self.aligned)


@ROI_POOLERS.register
class ROIPool(MultiLevelPooler):
    """Takes the maximum in each cell, after rounding the box to the feature map's pixels (Fast R-CNN).

    Args:
        resolution: cells along each side of the output.
        canonical_size: side in pixels of the box that belongs to the canonical level.
        canonical_level: log2 of the stride that this box is pooled at.
        level_epsilon: inside_log is floor(4 + log2(s / 224 + 1e-8)), as in detectron2; outside_log is
            floor(4 + log2(s / 224) + 1e-6), as in torchvision.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        resolution: int = 7,
        canonical_size: float = 224.0,
        canonical_level: int = 4,
        level_epsilon: LevelEpsilon = "inside_log",
    ) -> None:
        super().__init__(
            feature_shapes,
            resolution=resolution,
            canonical_size=canonical_size,
            canonical_level=canonical_level,
            level_epsilon=level_epsilon,
        )

    def pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        return roi_pool(feature, rois, self.resolution, scale)


def with_image_index(boxes_per_image: Sequence[Tensor]) -> Tensor:
    """B x [r, 4] -> [R, 5] float32, each box behind the index of its image."""
    return torch.cat(
        [
            torch.cat((torch.full_like(boxes[:, :1], image), boxes), dim=1).float()
            for image, boxes in enumerate(boxes_per_image)
        ]
    )
