"""Softmax cross entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.modeling.losses.options import not_negative, one_number_a_class
from frcnn.modeling.roles import CLASS_LOSSES, ClassLoss


@CLASS_LOSSES.register
class SoftmaxCrossEntropy(ClassLoss):
    """One softmax over all classes and background, which is the last logit.

    Args:
        num_classes: K, without background.
        class_weights: factors of the classes' losses, K + 1 numbers with that of background last; null is 1 for all.
        label_smoothing: share of the target that is spread over all K + 1 (https://arxiv.org/abs/1512.00567, section 7).
        loss_weight: factor of this loss.
    """

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        class_weights: tuple[float, ...] | None = None,
        label_smoothing: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.num_logits = num_classes + 1
        self.label_smoothing = label_smoothing
        self.loss_weight = not_negative(loss_weight)
        weight = None
        if class_weights is not None:
            one_number_a_class("class_weights", class_weights, num_classes + 1, "one a class and background last")
            weight = torch.tensor(class_weights)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(), classes, self.weight, reduction="none", label_smoothing=self.label_smoothing
        )

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=-1)[..., :-1]
