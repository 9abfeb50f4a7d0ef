"""Federated loss: most of the many classes are left alone by most images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.distributed import mean_over_processes
from frcnn.modeling.losses.options import not_negative, one_number_a_class
from frcnn.modeling.roles import CLASS_LOSSES, ClassLoss
from frcnn.ops.losses import one_vs_rest
from frcnn.structures import DrawKey

MAX_START = 2**31


@CLASS_LOSSES.register
class FederatedLoss(ClassLoss):
    """Binary cross entropy over some of the classes (https://arxiv.org/abs/2103.07461, section 3), for thousands of them.

    The classes that the batch has objects of count, and others are drawn until there are `num_sampled`. So a class is
    not pushed down by every object that is something else, and what a data set such as LVIS did not look for in an image
    is mostly left alone.

    A batch is that of all processes, or its part if gradients are accumulated. Draws depend on how often this loss was
    trained, counted from a number drawn with the weights, so from the seed of the run; the count is part of a
    checkpoint. Evaluation draws as the next training step would.

    Args:
        num_classes: K, without background.
        num_sampled: how many classes count in a batch, at least.
        class_counts: in how many images (or how often) the training set has each class, K numbers; null draws all classes
            alike.
        power: the chance of a class to be drawn goes with this power of its count.
        loss_weight: factor of this loss.
    """

    chance: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        num_sampled: int = 50,
        class_counts: tuple[int, ...] | None = None,
        power: float = 0.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if num_sampled < 1:
            raise ValueError(f"num_sampled must be at least 1, got {num_sampled}")
        if power < 0:
            raise ValueError(f"power must be at least 0, got {power}")
        if class_counts is not None:
            one_number_a_class("class_counts", class_counts, num_classes, "one a class")
        self.num_logits = num_classes
        self.num_sampled = min(num_sampled, num_classes)
        self.loss_weight = not_negative(loss_weight)
        chance = torch.tensor(class_counts or [1] * num_classes, dtype=torch.float32) ** power
        self.register_buffer("chance", chance, persistent=False)
        # A plain number: the host needs it in every step, and would wait for the device to read a buffer.
        self.draws = int(torch.randint(MAX_START, (), device="cpu"))

    def get_extra_state(self) -> Tensor:
        """How often it was trained, for checkpoints."""
        return torch.tensor(self.draws)

    def set_extra_state(self, state: Tensor) -> None:
        self.draws = int(state)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        targets = one_vs_rest(classes, self.num_logits)  # [n, K]
        counting = self.counting_classes(targets.sum(dim=0) > 0)  # [K]
        if self.training:
            self.draws += 1
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")  # [n, K]
        return (loss * counting).sum(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()

    def counting_classes(self, present: Tensor) -> Tensor:
        """Which classes count: those that are present, and others drawn by chance without replacement.

        Args:
            present: [K] bool, which classes this process has objects of.

        Returns:
            [K] bool.
        """
        if self.training:
            present = mean_over_processes(present.float()) > 0
        generator = DrawKey(iteration=self.draws).generator(0, "federated loss", present.device)
        # The smallest of exponential numbers, each divided by its chance, are a weighted draw without replacement.
        noise = torch.empty_like(self.chance).exponential_(generator=generator)
        order = torch.where(present, -1.0, noise / self.chance)  # [K]
        drawn = torch.zeros_like(present).index_fill(0, order.topk(self.num_sampled, largest=False).indices, True)
        return present | (drawn & order.isfinite())
