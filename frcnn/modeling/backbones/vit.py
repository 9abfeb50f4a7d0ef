"""Plain vision transformer with window attention (ViTDet, Li et al., https://arxiv.org/abs/2203.16527)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from frcnn.modeling.backbones.staged import PatchConv, set_drop_path
from frcnn.modeling.backbones.vit_attention import Attention
from frcnn.modeling.layers import NormName, freeze, make_channels_last_norm
from frcnn.modeling.roles import BACKBONES, Backbone
from frcnn.structures import FeatureShape


class PatchEmbed(nn.Module):
    """Patches to tokens: [B, 3, H, W] -> [B, h, w, C], where a patch that the border cuts is filled with zeros."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = PatchConv(3, width, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).permute(0, 2, 3, 1)


class MLP(nn.Module):
    """Two fully connected layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and beside a shortcut.

    Args:
        attention: in windows or over the whole map.
        width: channels of a token.
        mlp_ratio: hidden width of the MLP over `width`.
        norm: name of the norm layers.
        norm_eps: added to the norms' variance.
    """

    def __init__(self, attention: nn.Module, width: int, *, mlp_ratio: float, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = make_channels_last_norm(norm, width, norm_eps)
        self.attn = attention
        self.norm2 = make_channels_last_norm(norm, width, norm_eps)
        self.mlp = MLP(width, int(width * mlp_ratio))
        self.drop_path = StochasticDepth(0.0, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@BACKBONES.register
class ViT(Backbone):
    """A plain ViT (ViTDet, https://arxiv.org/abs/2203.16527): one map of one stride.

    Most blocks attend within windows, a few to the whole map. Images of any size: what patches and windows miss at the
    right and below is filled with zeros. With its defaults it is ViT-B/16 of ViTDet; B, L and H have width 768, 1024,
    1280, depth 12, 24, 32 and num_heads 12, 16, 16.

    Args:
        patch_size: side of a patch in pixels, which is the stride.
        width: channels of a token.
        depth: number of blocks.
        num_heads: heads of each attention; divides width.
        mlp_ratio: hidden width of the MLPs over width.
        window_size: side of the windows in tokens.
        global_blocks: which blocks, from 0, attend to the whole map; ViT-B of ViTDet has [2, 5, 8, 11], the last of each
            quarter.
        pretrain_size: side in pixels of the images it was pretrained with, which sets how many absolute positions it has;
            for other sizes they are interpolated.
        relative_position: whether attention also depends on the distance between two tokens, by rows and by columns.
        relative_position_size: side in tokens of the maps whose distances the global blocks know; for other sizes they
            are interpolated. 64 is an image of 1024 pixels.
        norm: LN (the paper, and for pretrained weights), BN, SyncBN, GN or FrozenBN.
        norm_eps: added to the norms' variance.
        drop_path: how often the last block is left out in training; earlier ones are less often, evenly.
        freeze_at: how many parts, from the first, do not learn: 0 none, 1 patches and positions, 2 also the first block,
            up to 1 + depth.
    """

    def __init__(
        self,
        *,
        patch_size: Literal[8, 16, 32] = 16,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        window_size: int = 14,
        global_blocks: tuple[int, ...] = (2, 5, 8, 11),
        pretrain_size: int = 224,
        relative_position: bool = True,
        relative_position_size: int = 64,
        norm: NormName = "LN",
        norm_eps: float = 1e-6,
        drop_path: float = 0.1,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        if patch_size not in (8, 16, 32):
            raise ValueError(f"patch_size must be 8, 16 or 32, got {patch_size}")
        if pretrain_size < patch_size:
            raise ValueError(f"pretrain_size must be at least patch_size, got {pretrain_size} and {patch_size}")
        if depth < 1 or mlp_ratio <= 0:
            raise ValueError(f"depth must be at least 1 and mlp_ratio above 0, got {depth} and {mlp_ratio}")
        if not all(0 <= block < depth for block in global_blocks):
            raise ValueError(f"global_blocks must be in 0..{depth - 1}, got {list(global_blocks)}")
        if not 0 <= freeze_at <= 1 + depth:
            raise ValueError(f"freeze_at must be in 0..{1 + depth} (0 none, 1 patches and positions), got {freeze_at}")

        self.patch_embed = PatchEmbed(patch_size, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, (pretrain_size // patch_size) ** 2, width))
        self.blocks = nn.ModuleList()
        for i in range(depth):
            window = None if i in global_blocks else window_size
            table_size = (window or relative_position_size) if relative_position else None
            attention = Attention(width, num_heads, window_size=window, table_size=table_size)
            self.blocks.append(Block(attention, width, mlp_ratio=mlp_ratio, norm=norm, norm_eps=norm_eps))
        self._initialise()
        set_drop_path(self, drop_path)
        if freeze_at > 0:
            freeze(self.patch_embed)
            self.pos_embed.requires_grad_(False)
        for block in self.blocks[: max(0, freeze_at - 1)]:
            freeze(block)

        self.name = f"c{int(math.log2(patch_size))}"
        self.feature_shapes = {self.name: FeatureShape(width, patch_size)}

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.patch_embed(images)  # [B, h, w, C]
        x = x + self.positions(x.shape[1], x.shape[2])
        for block in self.blocks:
            x = block(x)
        return {self.name: x.permute(0, 3, 1, 2).contiguous()}

    def positions(self, height: int, width: int) -> Tensor:
        """The absolute positions of a map of so many tokens, [1, height, width, C]."""
        side = math.isqrt(self.pos_embed.shape[1])
        table = self.pos_embed.unflatten(1, (side, side))
        if (height, width) == (side, side):
            return table
        resized = F.interpolate(table.permute(0, 3, 1, 2), size=(height, width), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)
