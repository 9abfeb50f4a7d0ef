"""What samplers share: the quota of an image, and draws that depend on nothing but their generator.

Every draw returns ascending indices, so that only the choice is random and not the order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.modeling.roles import Sampler
from frcnn.structures import BACKGROUND_LABEL, POSITIVE_LABEL, Matches


class QuotaSampler(Sampler):
    """A batch of fixed size per image, of which at most a fraction is positive.

    Args:
        batch_size_per_image: how many candidates are taken in an image, if there are enough.
        positive_fraction: the largest share of them that may be positive.
    """

    batch_size_per_image: int

    def __init__(self, *, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__()
        if batch_size_per_image < 1:
            raise ValueError(f"batch_size_per_image must be at least 1, got {batch_size_per_image}")
        if not 0 <= positive_fraction <= 1:
            raise ValueError(f"positive_fraction must be in [0, 1], got {positive_fraction}")
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def quota(self, available_positive: int, available_negative: int) -> tuple[int, int]:
        """How many positives and negatives to take; negatives fill what positives leave free, not the reverse."""
        num_positive = min(int(self.batch_size_per_image * self.positive_fraction), available_positive)
        return num_positive, min(self.batch_size_per_image - num_positive, available_negative)


def labelled(matches: Matches) -> tuple[Tensor, Tensor]:
    """Indices of all positives and of all negatives."""
    positive = torch.nonzero(matches.labels == POSITIVE_LABEL).squeeze(1)
    negative = torch.nonzero(matches.labels == BACKGROUND_LABEL).squeeze(1)
    return positive, negative


def draw(index: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some of the indices, all equally likely.

    Args:
        index: [n].
        count: how many.
        generator: of the draw.
    """
    chosen = torch.randperm(len(index), generator=generator, device=index.device)[:count]
    return index[chosen].sort().values


def draw_by_group(index: Tensor, group: Tensor, count: int, per_group: int, generator: torch.Generator) -> Tensor:
    """Up to `per_group` of each group; if these are too few, the rest is drawn from all that is left.

    Args:
        index: [n].
        group: [n] int64, the group of each.
        count: how many to take; at most n.
        per_group: how many of each group come first.
        generator: of the draw.
    """
    order, rank = shuffled_ranks(group, generator)
    return index[order[(rank >= per_group).long().argsort(stable=True)[:count]]].sort().values


def draw_evenly(index: Tensor, group: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """As equally many of each group as the sizes of the groups allow.

    Args:
        index: [n].
        group: [n] int64, the group of each.
        count: how many to take; at most n.
        generator: of the draw.
    """
    order, rank = shuffled_ranks(group, generator)
    return index[order[rank.argsort(stable=True)[:count]]].sort().values


def shuffled_ranks(group: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random order, and the how-manieth of its group each element of it is.

    Args:
        group: [n] int64.
        generator: of the draw.

    Returns:
        order [n], and rank [n] of the elements in this order, 0 for the first of its group.
    """
    order = torch.randperm(len(group), generator=generator, device=group.device)
    by_group = group[order].argsort(stable=True)
    sorted_group = group[order][by_group]
    first_of_group = torch.searchsorted(sorted_group, sorted_group)
    rank = torch.empty_like(order)
    rank[by_group] = torch.arange(len(group), device=group.device) - first_of_group
    return order, rank
