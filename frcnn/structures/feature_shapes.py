"""Widths and strides: what a part knows of the maps it will be given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureShape:
    """Width and stride of one feature map."""

    channels: int
    stride: int


@dataclass(frozen=True)
class ROIShape:
    """Width, and cells along each side, of the features of one ROI."""

    channels: int
    resolution: int
