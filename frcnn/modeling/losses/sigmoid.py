"""Classification losses with an independent sigmoid for each class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from frcnn.modeling.losses.options import not_negative
from frcnn.modeling.roles import CLASS_LOSSES, ClassLoss
from frcnn.ops.losses import one_vs_rest


@CLASS_LOSSES.register
class BinaryCrossEntropy(ClassLoss):
    """An independent sigmoid for each class, summed over the classes; background is all zeros.

    With one class it is the objectness loss of a region proposal network.

    Args:
        num_classes: K, without background.
        loss_weight: factor of this loss.
    """

    def __init__(self, num_classes: int, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_logits = num_classes
        self.loss_weight = not_negative(loss_weight)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        targets = one_vs_rest(classes, self.num_logits)  # [n, K]
        return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").sum(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()


@CLASS_LOSSES.register
class SigmoidFocalLoss(ClassLoss):
    """Binary cross entropy that counts well-known examples less (https://arxiv.org/abs/1708.02002).

    Args:
        num_classes: K, without background.
        alpha: weight of the objects; everything else has 1 - alpha.
        gamma: how quickly well-known examples fade; 0 is binary cross entropy.
        loss_weight: factor of this loss.
    """

    def __init__(self, num_classes: int, *, alpha: float = 0.25, gamma: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        if gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.num_logits = num_classes
        self.alpha = alpha
        self.gamma = gamma
        self.loss_weight = not_negative(loss_weight)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        targets = one_vs_rest(classes, self.num_logits)  # [n, K]
        return sigmoid_focal_loss(logits.float(), targets, self.alpha, self.gamma).sum(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()
