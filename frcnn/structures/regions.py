"""What the first stage hands the second: proposals, and those sampled for training."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor


@dataclass(frozen=True)
class Proposals:
    """Regions of one image that may hold an object, best first.

    Args:
        boxes: [P, 4].
        objectness: [P] logits.
        level: [P] int64, which feature level each came from.
        index: [P] int64, which candidate each was (level, y, x, anchor order).
    """

    boxes: Tensor
    objectness: Tensor
    level: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Rois:
    """Regions of one image that were sampled for training the second stage; positives come first.

    Args:
        boxes: [r, 4].
        classes: [r] int64 in 0..K, background is K.
        gt_boxes: [r, 4] of the ground truth each was matched with (zeros in an image without objects).
        gt_index: [r] int64, its index in the targets.
        index: [r] int64, which proposal each was; ground truths appended behind the proposals follow them.
    """

    boxes: Tensor
    classes: Tensor
    gt_boxes: Tensor
    gt_index: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor) -> Rois:
        """Some of the regions.

        Args:
            index: [n] int64 or [r] bool.
        """
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})
