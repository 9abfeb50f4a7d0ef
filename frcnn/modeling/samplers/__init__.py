"""Samplers: which of the labelled candidates of one image take part in the loss.

Each returns the indices of the positives and of the negatives, both ascending, so that only the choice is random and
not the order. Discarded candidates are never returned.
"""

from frcnn.modeling.samplers.all import AllSampler
from frcnn.modeling.samplers.balanced import BalancedPositiveNegativeSampler
from frcnn.modeling.samplers.combined import CombinedSampler
from frcnn.modeling.samplers.instance_balanced import InstanceBalancedSampler
from frcnn.modeling.samplers.iou_balanced import IoUBalancedSampler
from frcnn.modeling.samplers.ohem import OHEMSampler

__all__ = [
    "AllSampler",
    "BalancedPositiveNegativeSampler",
    "CombinedSampler",
    "InstanceBalancedSampler",
    "IoUBalancedSampler",
    "OHEMSampler",
]
