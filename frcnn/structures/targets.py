"""What is known of the objects of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class InstanceMasks:
    """The masks of the objects of one image, each cut to a window of its own, one behind the other in one flat tensor.

    So a hundred small objects in a large image take as much memory as their boxes, not as a hundred images.

    Args:
        pixels: [sum of h w] uint8, 0 or 1, mask after mask, row by row.
        windows: [G, 4] int64, x1 y1 x2 y2 of each window in the image (x2, y2 exclusive); outside of it the mask is 0.
    """

    pixels: Tensor
    windows: Tensor

    def __len__(self) -> int:
        return len(self.windows)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> InstanceMasks:
        return InstanceMasks(
            self.pixels.to(device, non_blocking=non_blocking), self.windows.to(device, non_blocking=non_blocking)
        )


@dataclass(frozen=True)
class Targets:
    """Ground truth of one image, in the pixels of the image the network sees.

    Args:
        boxes: [G, 4].
        classes: [G] int64 in 0..K-1.
        masks: of the G objects, or None where the data set has no segmentation.
        keypoints: [G, J, 3] x, y and visibility (0 not labelled, 1 hidden, 2 seen), or None where there are none.
    """

    boxes: Tensor
    classes: Tensor
    masks: InstanceMasks | None = None
    keypoints: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def class_agnostic(self) -> Targets:
        """The same objects, all of class 0 (what a proposal generator looks for)."""
        return replace(self, classes=torch.zeros_like(self.classes))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        return Targets(
            boxes=self.boxes.to(device, non_blocking=non_blocking),
            classes=self.classes.to(device, non_blocking=non_blocking),
            masks=None if self.masks is None else self.masks.to(device, non_blocking),
            keypoints=None if self.keypoints is None else self.keypoints.to(device, non_blocking=non_blocking),
        )
