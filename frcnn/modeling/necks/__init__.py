"""Necks: feature maps to feature maps."""

from frcnn.modeling.necks.fpn import FPN

__all__ = ["FPN"]
