"""Reading the dense output of a head: C values for each anchor of each location, as channels.

A map is [B, A*C, H, W]; the C values of one anchor are neighbours. Candidates of one level are counted in the order
y, x, anchor, so candidate i is anchor `i % A` at location `i // A`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten_map(dense: Tensor, num_values: int = 1) -> Tensor:
    """[B, A*C, H, W] -> [B, H*W*A, C], in the order y, x, anchor.

    Args:
        dense: the map.
        num_values: C, how many values each anchor has.
    """
    per_anchor = dense.unflatten(1, (-1, num_values))  # [B, A, C, H, W]
    return per_anchor.permute(0, 3, 4, 1, 2).flatten(1, 3)


def gather_from_map(dense: Tensor, num_values: int, image: Tensor, index: Tensor) -> Tensor:
    """The values of some candidates of one level, without reordering the map.

    Args:
        dense: [B, A*C, H, W].
        num_values: C, how many values each anchor has.
        image: which image each candidate belongs to; broadcasts with `index`.
        index: [...] which candidate of this level.

    Returns:
        [..., C].
    """
    per_anchor = dense.unflatten(1, (-1, num_values))  # [B, A, C, H, W]
    num_anchors, width = per_anchor.shape[1], per_anchor.shape[4]
    anchor = index % num_anchors
    location = torch.div(index, num_anchors, rounding_mode="floor")
    y = torch.div(location, width, rounding_mode="floor")
    return per_anchor[image, anchor, :, y, location % width]


def gather_from_levels(maps: Sequence[Tensor], num_values: int, image: Tensor, index: Tensor) -> Tensor:
    """The values of some candidates that are counted over all levels: level, y, x, anchor.

    Args:
        maps: L x [B, A*C, H_l, W_l].
        num_values: C, how many values each anchor has.
        image: [n] which image each candidate belongs to.
        index: [n] which candidate.

    Returns:
        [n, C], with gradient to the maps.
    """
    first = 0
    rows_per_level, values_per_level = [], []
    for dense in maps:
        end = first + dense[0].numel() // num_values
        rows = torch.nonzero((index >= first) & (index < end)).squeeze(1)  # [n_l]
        rows_per_level.append(rows)
        values_per_level.append(gather_from_map(dense, num_values, image[rows], index[rows] - first))
        first = end
    return torch.cat(values_per_level)[torch.cat(rows_per_level).argsort()]
