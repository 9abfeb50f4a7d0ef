"""Attention between the tokens of a map: over the whole map or within windows, with relative positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ALIGNMENT = 8  # what the kernels that keep no attention matrix ask of the channels


class Attention(nn.Module):
    """Every token looks at every token of its window, and may weigh how many rows and columns lie between the two.

    Windows that the border of the map cuts are filled with zeros, which take part, as in ViTDet.

    Args:
        width: channels of a token.
        num_heads: into how many parts, each with an attention of its own, the channels are cut.
        window_size: side of the square windows in tokens; None for one window, the whole map.
        table_size: side in tokens of the maps whose distances are known, see `with_relative_positions`; None for no
            relative positions.
    """

    def __init__(self, width: int, num_heads: int, *, window_size: int | None, table_size: int | None) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads must divide width, got {num_heads} and {width}")
        if window_size is not None and window_size < 1:
            raise ValueError(f"window_size must be at least 1, got {window_size}")
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h: nn.Parameter | None = None
        self.rel_pos_w: nn.Parameter | None = None
        if table_size is not None:
            if table_size < 1:
                raise ValueError(f"relative_position_size must be at least 1, got {table_size}")
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * table_size - 1, width // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * table_size - 1, width // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        if self.window_size is None:
            return self.attend(x)
        windows = to_windows(x, self.window_size)
        return from_windows(self.attend(windows), (x.shape[1], x.shape[2]))

    def attend(self, x: Tensor) -> Tensor:
        """Attention of all tokens of each map, [B, H, W, C] -> [B, H, W, C]."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, H W, C / heads]
        if self.rel_pos_h is None or self.rel_pos_w is None:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            q, k = with_relative_positions(q, k, self.rel_pos_h, self.rel_pos_w, (height, width))
            x = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, channels))


def to_windows(x: Tensor, size: int) -> Tensor:
    """[B, H, W, C] -> [windows of the batch, size, size, C], padded with zeros at the right and below."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % size, 0, -x.shape[1] % size))
    windows = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # [B, rows, size, columns, size, C]
    return windows.transpose(2, 3).flatten(0, 2)


def from_windows(windows: Tensor, map_size: tuple[int, int]) -> Tensor:
    """The map [B, H, W, C] that `to_windows` has cut, without its padding."""
    size = windows.shape[1]
    height, width = map_size
    rows, columns = -(-height // size), -(-width // size)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)  # [B, rows, size, columns, size, C]
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def with_relative_positions(
    q: Tensor, k: Tensor, table_h: Tensor, table_w: Tensor, map_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Queries and keys whose products are the attention logits with decomposed relative positions.

    The logit of a query and a key is q k / sqrt(c) + q table_h[rows between] + q table_w[columns between]
    (MViTv2, https://arxiv.org/abs/2112.01526). The two sums are the same for all keys of a row and of a column. So each
    query gets them as further channels, each key says which row and column it is in, and no matrix of all pairs is made.

    Args:
        q: [B, heads, H W, c].
        k: [B, heads, H W, c].
        table_h: [2 n - 1, c], for distances in rows of -(n - 1) to n - 1; interpolated if H is not n.
        table_w: the same for columns.
        map_size: (H, W).

    Returns:
        scaled queries and keys, both [B, heads, H W, c + H + W] and rounded up to a multiple of 8.
    """
    height, width = map_size
    on_map = q.unflatten(2, (height, width))  # [B, heads, H, W, c]
    rows = torch.einsum("bnhwc,hkc->bnhwk", on_map, distances(table_h, height).to(q.dtype))  # [B, heads, H, W, H]
    columns = torch.einsum("bnhwc,wkc->bnhwk", on_map, distances(table_w, width).to(q.dtype))  # [B, heads, H, W, W]
    q = torch.cat([q * q.shape[-1] ** -0.5, rows.flatten(2, 3), columns.flatten(2, 3)], dim=-1)

    row_of = torch.eye(height, dtype=k.dtype, device=k.device).repeat_interleave(width, dim=0)  # [H W, H]
    column_of = torch.eye(width, dtype=k.dtype, device=k.device).repeat(height, 1)  # [H W, W]
    places = torch.cat([row_of, column_of], dim=-1).expand(*k.shape[:2], -1, -1)
    k = torch.cat([k, places], dim=-1)
    fill = -q.shape[-1] % _ALIGNMENT
    return F.pad(q, (0, fill)), F.pad(k, (0, fill))


def distances(table: Tensor, size: int) -> Tensor:
    """The row of a table for every pair of places, [size, size, c]: [i, j] is that of the distance i - j."""
    wanted = 2 * size - 1
    if len(table) != wanted:
        table = F.interpolate(table.T[None], size=wanted, mode="linear")[0].T
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place[None, :] + size - 1]
