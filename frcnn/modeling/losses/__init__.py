"""Losses of box regression and of classification, as components. None applies its own weight: the parent does."""

from frcnn.modeling.losses.deltas import BalancedL1Loss, L1Loss, SmoothL1Loss
from frcnn.modeling.losses.dynamic import DynamicSmoothL1Loss
from frcnn.modeling.losses.equalization import EqualizationLoss
from frcnn.modeling.losses.federated import FederatedLoss
from frcnn.modeling.losses.overlap import CIoULoss, DIoULoss, GIoULoss, IoULoss
from frcnn.modeling.losses.seesaw import SeesawLoss
from frcnn.modeling.losses.sigmoid import BinaryCrossEntropy, SigmoidFocalLoss
from frcnn.modeling.losses.softmax import SoftmaxCrossEntropy

__all__ = [
    "BalancedL1Loss",
    "BinaryCrossEntropy",
    "CIoULoss",
    "DIoULoss",
    "DynamicSmoothL1Loss",
    "EqualizationLoss",
    "FederatedLoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "SeesawLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftmaxCrossEntropy",
]
