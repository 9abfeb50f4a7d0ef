"""Losses of boxes and classes, one value for each row, in float32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_l1(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    """Huber's loss over beta, summed over the last axis: quadratic below `beta`, linear above; L1 where beta is 0.

    Args:
        pred: [n, 4].
        target: [n, 4].
        beta: in the units of the deltas.

    Returns:
        [n].
    """
    return F.smooth_l1_loss(pred.float(), target.float(), reduction="none", beta=beta).sum(dim=-1)


def balanced_l1(pred: Tensor, target: Tensor, alpha: float, gamma: float, beta: float) -> Tensor:
    """Balanced L1 loss (https://arxiv.org/abs/1904.02701, section 3.3), summed over the last axis.

    Its gradient is alpha ln(b x / beta + 1) for a difference x below `beta` and gamma above, where b makes both meet.

    Args:
        pred: [n, 4].
        target: [n, 4].
        alpha: above 0.
        gamma: above 0.
        beta: above 0, in the units of the deltas.

    Returns:
        [n].
    """
    difference = (pred.float() - target.float()).abs()
    b = math.expm1(gamma / alpha)
    small = difference.clamp(max=beta)
    scaled = b * small / beta
    loss = alpha * beta / b * ((scaled + 1) * scaled.log1p() - scaled)  # [n, 4], the integral of the gradient
    return (loss + gamma * (difference - small)).sum(dim=-1)


def one_vs_rest(classes: Tensor, num_classes: int) -> Tensor:
    """Targets of independent sigmoids: 1 at the class, and all zeros for background.

    Args:
        classes: [n] in 0..K, K is background.
        num_classes: K.

    Returns:
        [n, K] float32.
    """
    return (classes[:, None] == torch.arange(num_classes, device=classes.device)).float()
