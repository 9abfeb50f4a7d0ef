"""Seesaw loss: rare classes are pushed down less by frequent ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.distributed import mean_over_processes, world_size
from frcnn.modeling.losses.options import not_negative
from frcnn.modeling.roles import CLASS_LOSSES, ClassLoss
from frcnn.ops.losses import one_vs_rest

EPS = 1e-2


@CLASS_LOSSES.register
class SeesawLoss(ClassLoss):
    """Softmax cross entropy for long tails (https://arxiv.org/abs/2008.10032), with the objectness branch of the paper.

    The first K logits are a softmax over the classes, trained on objects only; the last two are a softmax of object
    against background, trained on all. A score is the product of both. In the softmax over the classes, the negative
    gradient that an object of class i has on class j is multiplied by two factors: mitigation, (N_j / N_i)^p where j is
    rarer than i, and compensation, (score_j / score_i)^q where j is mistaken for i. N counts the objects that were
    trained on so far, in all processes; the counts are part of a checkpoint.

    Args:
        num_classes: K, without background.
        p: exponent of the mitigation; 0 turns it off.
        q: exponent of the compensation; 0 turns it off.
        loss_weight: factor of this loss.
    """

    class_counts: Tensor

    def __init__(self, num_classes: int, *, p: float = 0.8, q: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if p < 0 or q < 0:
            raise ValueError(f"p and q must be at least 0, got {p} and {q}")
        self.num_classes = num_classes
        self.num_logits = num_classes + 2
        self.p = p
        self.q = q
        self.loss_weight = not_negative(loss_weight)
        self.register_buffer("class_counts", torch.zeros(num_classes, dtype=torch.int64))

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        class_logits, objectness = logits.float().split((self.num_classes, 2), dim=-1)  # [n, K], [n, 2]
        if self.training:
            self._count(classes)
        is_background = classes == self.num_classes
        loss = F.cross_entropy(objectness, is_background.long(), reduction="none")  # [n]
        positive = torch.nonzero(~is_background).squeeze(1)
        return loss.index_add(0, positive, self._seesaw(class_logits[positive], classes[positive]))

    def scores(self, logits: Tensor) -> Tensor:
        class_logits, objectness = logits.float().split((self.num_classes, 2), dim=-1)
        return class_logits.softmax(dim=-1) * objectness.softmax(dim=-1)[..., :1]

    def _count(self, classes: Tensor) -> None:
        seen = one_vs_rest(classes, self.num_classes).sum(dim=0)  # [K]
        self.class_counts += (mean_over_processes(seen) * world_size()).round().long()

    def _seesaw(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Cross entropy [n] of objects, each other class weighed by mitigation and compensation."""
        counts = self.class_counts.clamp(min=1).float()
        mitigation = (counts / counts[classes, None]).clamp(max=1) ** self.p  # [n, K]
        scores = logits.detach().softmax(dim=-1)
        own = scores.gather(1, classes[:, None]).clamp(min=EPS)
        compensation = (scores / own).clamp(min=1) ** self.q  # [n, K]
        # Both are 1 for the class itself: there the ratio is 1, or below 1 where its score is under EPS.
        return F.cross_entropy(logits + (mitigation * compensation).log(), classes, reduction="none")
