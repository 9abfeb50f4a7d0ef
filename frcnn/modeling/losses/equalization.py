"""Equalization loss: objects of other classes do not push the classes of the tail down."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.modeling.losses.options import not_negative, one_number_a_class
from frcnn.modeling.roles import CLASS_LOSSES, ClassLoss
from frcnn.ops.losses import one_vs_rest


@CLASS_LOSSES.register
class EqualizationLoss(ClassLoss):
    """Binary cross entropy that spares rare classes (https://arxiv.org/abs/2003.05176, section 3.2).

    An object is no negative example of the classes of the tail; background is one of every class.

    Args:
        num_classes: K, without background.
        class_counts: in how many images the training set has each class, K numbers.
        tail_below: classes in fewer images than this are the tail; the paper's threshold of 0.00176 is 100 images of LVIS.
        loss_weight: factor of this loss.
    """

    in_tail: Tensor

    def __init__(
        self, num_classes: int, *, class_counts: tuple[int, ...], tail_below: int = 100, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        one_number_a_class("class_counts", class_counts, num_classes, "one a class")
        if tail_below < 0:
            raise ValueError(f"tail_below must be at least 0, got {tail_below}")
        self.num_logits = num_classes
        self.loss_weight = not_negative(loss_weight)
        self.register_buffer("in_tail", torch.tensor([n < tail_below for n in class_counts]), persistent=False)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        targets = one_vs_rest(classes, self.num_logits)  # [n, K]
        is_object = (classes < self.num_logits)[:, None]
        spared = is_object & self.in_tail & (targets == 0)  # [n, K]
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        return (loss * ~spared).sum(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()
