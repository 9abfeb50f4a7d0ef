"""What the loader gives the detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from frcnn.structures.draws import DrawKey
from frcnn.structures.targets import Targets


@dataclass(frozen=True)
class Batch:
    """A batch of images and what is known of them.

    Args:
        images: B x [3, h, w], uint8 or float, 0..255, RGB, unpadded, as the loader gives them; the detector replaces them
            by one normalised, padded tensor [B, 3, H, W] before it hands the batch on.
        image_sizes: B x (h, w), before padding.
        original_sizes: B x (h, w) of the files; detections are scaled back to these.
        image_ids: B ids as in the data set.
        targets: B Targets, or None when predicting.
        proposals: B x [P, 4] precomputed proposals, or None.
        draw: the key of the random draws.
    """

    images: Sequence[Tensor] | Tensor
    image_sizes: Sequence[tuple[int, int]]
    original_sizes: Sequence[tuple[int, int]]
    image_ids: Sequence[int]
    targets: Sequence[Targets] | None = None
    proposals: Sequence[Tensor] | None = None
    draw: DrawKey = field(default_factory=DrawKey)

    def __len__(self) -> int:
        return len(self.image_sizes)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of the padded batch; only after the detector has stacked the images."""
        if not isinstance(self.images, Tensor):
            raise TypeError("images are still a list: padded_size is known once the detector has stacked them")
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            images=move(self.images) if isinstance(self.images, Tensor) else [move(image) for image in self.images],
            targets=None if self.targets is None else [t.to(device, non_blocking) for t in self.targets],
            proposals=None if self.proposals is None else [move(p) for p in self.proposals],
        )

    def split(self, parts: int) -> list[Batch]:
        """Cuts the batch into parts of equal size.

        Args:
            parts: how many.

        Raises:
            ValueError: the batch cannot be divided.
        """
        if parts == 1:
            return [self]
        size, rest = divmod(len(self), parts)
        if rest or size == 0:
            raise ValueError(f"a batch of {len(self)} images cannot be split into {parts} equal parts")

        def cut(values: Any, start: int) -> Any:
            return None if values is None else values[start : start + size]

        return [
            replace(
                self,
                images=cut(self.images, start),
                image_sizes=cut(self.image_sizes, start),
                original_sizes=cut(self.original_sizes, start),
                image_ids=cut(self.image_ids, start),
                targets=cut(self.targets, start),
                proposals=cut(self.proposals, start),
                draw=self.draw.part(start, start + size),
            )
            for start in range(0, len(self), size)
        ]
