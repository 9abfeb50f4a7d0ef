"""Necks: feature maps to feature maps."""

from frcnn.modeling.necks.bfp import BFP
from frcnn.modeling.necks.bifpn import BiFPN
from frcnn.modeling.necks.fpn import FPN
from frcnn.modeling.necks.pafpn import PAFPN
from frcnn.modeling.necks.simple import SimpleFeaturePyramid

__all__ = ["BFP", "FPN", "PAFPN", "BiFPN", "SimpleFeaturePyramid"]
