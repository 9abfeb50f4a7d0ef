"""Anchors: the reference boxes that a region proposal network scores and moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from frcnn.modeling.roles import ANCHOR_GENERATORS, AnchorGenerator


@ANCHOR_GENERATORS.register
class GridAnchorGenerator(AnchorGenerator):
    """Anchors of each size and aspect ratio at every location of every feature level (Faster R-CNN, section 3.1.1).

    Args:
        strides: the stride of each level in pixels.
        sizes: for each level, square roots of the anchors' areas in pixels.
        aspect_ratios: heights over widths; one list for all levels, or one list for each level.
        offset: centre of the first anchor in strides from the image's corner; 0.5 is the middle of the first cell.
        round_cells: round the anchors at the origin to whole pixels, as torchvision does.
        stride: declared takes the level's stride; padded_size takes padded image size // grid size for each axis, as
            torchvision does (61 instead of 64 for P6 of 800 px).
        order: of the anchors of one location: size goes through the ratios of the first size, then of the second
            (detectron2); ratio goes through the sizes of the first ratio, then of the second (torchvision).

    Raises:
        ValueError: if levels differ in number or in anchors per location, or a size or ratio is not positive.
    """

    cell_anchors: Tensor

    def __init__(
        self,
        strides: Sequence[int],
        *,
        sizes: tuple[tuple[float, ...], ...],
        aspect_ratios: tuple[float, ...] | tuple[tuple[float, ...], ...],
        offset: float = 0.0,
        round_cells: bool = False,
        stride: Literal["declared", "padded_size"] = "declared",
        order: Literal["size", "ratio"] = "size",
    ) -> None:
        super().__init__()
        if not 0 <= offset < 1:
            raise ValueError(f"offset must be in [0, 1), in strides, got {offset}")
        ratios_per_level = _ratios_per_level(aspect_ratios, len(strides))
        for name, given in (("sizes", sizes), ("aspect_ratios", ratios_per_level)):
            if len(given) != len(strides):
                raise ValueError(f"{name} has {len(given)} levels, but there are {len(strides)} feature levels")
            if not all(values and min(values) > 0 for values in given):
                raise ValueError(f"{name} must have at least one value a level, all positive, got {given}")
        counts = [len(level_sizes) * len(ratios) for level_sizes, ratios in zip(sizes, ratios_per_level, strict=True)]
        if len(set(counts)) != 1:
            raise ValueError(f"every level must have the same number of anchors per location, got {counts}")
        self.strides = tuple(strides)
        self.sizes = tuple(tuple(map(float, level)) for level in sizes)
        self.aspect_ratios = tuple(tuple(map(float, level)) for level in ratios_per_level)
        self.num_anchors = counts[0]
        self.offset = offset
        self.round_cells = round_cells
        self.stride = stride
        self.order = order
        cells = [self.generate_anchors(*level) for level in zip(sizes, ratios_per_level, strict=True)]
        self.register_buffer("cell_anchors", torch.stack(cells), persistent=False)  # [L, A, 4]

    def generate_anchors(self, sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
        """The anchors of one location of one level, centred on the origin.

        Args:
            sizes: square roots of areas in pixels.
            aspect_ratios: heights over widths.

        Returns:
            [A, 4] float32.
        """
        if self.order == "size":
            pairs = [(size, ratio) for size in sizes for ratio in aspect_ratios]
        else:
            pairs = [(size, ratio) for ratio in aspect_ratios for size in sizes]
        widths = [math.sqrt(size * size / ratio) for size, ratio in pairs]
        cells = [(-w / 2, -w * ratio / 2, w / 2, w * ratio / 2) for w, (_, ratio) in zip(widths, pairs, strict=True)]
        anchors = torch.tensor(cells, dtype=torch.float32)
        return anchors.round() if self.round_cells else anchors

    def forward(self, grid_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]) -> list[Tensor]:
        """All anchors of one image; every image of a batch has the same ones.

        Args:
            grid_sizes: L x (height, width) of the feature maps.
            padded_size: (H, W) of the batch in pixels.

        Returns:
            L x [height * width * A, 4], in the order y, x, anchor.
        """
        anchors_per_level = []
        for level, (height, width) in enumerate(grid_sizes):
            stride_y = stride_x = self.strides[level]
            if self.stride == "padded_size":
                stride_y, stride_x = padded_size[0] // height, padded_size[1] // width
            device = self.cell_anchors.device
            y = (torch.arange(height, device=device, dtype=torch.float32) + self.offset) * stride_y
            x = (torch.arange(width, device=device, dtype=torch.float32) + self.offset) * stride_x
            y, x = torch.meshgrid(y, x, indexing="ij")  # [height, width] each
            shifts = torch.stack((x, y, x, y), dim=-1)[:, :, None]  # [height, width, 1, 4]
            anchors_per_level.append((shifts + self.cell_anchors[level]).reshape(-1, 4))
        return anchors_per_level


@ANCHOR_GENERATORS.register
class OctaveAnchorGenerator(GridAnchorGenerator):
    """Grid anchors whose sizes are multiples of each level's stride, several to an octave (RetinaNet).

    https://arxiv.org/abs/1708.02002, section 4: base scale 4 and three scales an octave give 32, 40.3 and 50.8 px at
    stride 8, and twice as much on the next level.

    Args:
        strides: the stride of each level in pixels.
        octave_base_scale: the smallest size of a level, in strides.
        scales_per_octave: how many sizes a level has, each 2 ** (1 / scales_per_octave) times the one before.
        aspect_ratios: heights over widths.
        offset: centre of the first anchor in strides from the image's corner; 0.5 is the middle of the first cell.
    """

    def __init__(
        self,
        strides: Sequence[int],
        *,
        octave_base_scale: float = 4.0,
        scales_per_octave: int = 3,
        aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        offset: float = 0.0,
    ) -> None:
        if not octave_base_scale > 0:
            raise ValueError(f"octave_base_scale must be above 0, got {octave_base_scale}")
        if scales_per_octave < 1:
            raise ValueError(f"scales_per_octave must be at least 1, got {scales_per_octave}")
        scales = [octave_base_scale * 2 ** (step / scales_per_octave) for step in range(scales_per_octave)]
        sizes = tuple(tuple(stride * scale for scale in scales) for stride in strides)
        super().__init__(strides, sizes=sizes, aspect_ratios=aspect_ratios, offset=offset)


def _ratios_per_level(
    aspect_ratios: tuple[float, ...] | tuple[tuple[float, ...], ...], num_levels: int
) -> tuple[tuple[float, ...], ...]:
    if all(isinstance(ratio, int | float) for ratio in aspect_ratios):
        return (cast(tuple[float, ...], tuple(aspect_ratios)),) * num_levels
    return cast(tuple[tuple[float, ...], ...], aspect_ratios)
