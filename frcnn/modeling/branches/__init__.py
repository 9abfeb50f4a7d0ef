"""What follows the boxes: masks and keypoints."""

from frcnn.modeling.branches.keypoints import KeypointBranch
from frcnn.modeling.branches.masks import MaskBranch

__all__ = ["KeypointBranch", "MaskBranch"]
