"""What the second stage says, and what a detector returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScoredBoxes:
    """What the second stage says of every box of one image, before anything is left out.

    Args:
        boxes: [r, K, 4], one box for each class.
        scores: [r, K] in 0..1.
    """

    boxes: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def best_boxes(self) -> Tensor:
        """[r, 4], the box of each row's best class."""
        best = self.scores.argmax(dim=1)  # [r]
        return self.boxes.gather(1, best[:, None, None].expand(-1, 1, self.boxes.shape[2]))[:, 0]


@dataclass(frozen=True)
class EncodedMasks:
    """Masks of objects pasted into their image, as COCO's run lengths: some hundred bytes each, however large the image.

    Args:
        size: (h, w) of the image.
        counts: D run-length strings as COCO compresses them.
    """

    size: tuple[int, int]
    counts: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor) -> EncodedMasks:
        """Some of the masks, for an index [n] int64 or [D] bool."""
        chosen = torch.arange(len(self))[index.cpu()]  # [n]
        return EncodedMasks(self.size, tuple(self.counts[i] for i in chosen.tolist()))

    def to(self, device: torch.device | str) -> EncodedMasks:
        """Itself: run lengths are bytes, which are on no device."""
        return self

    def rle(self, i: int) -> dict[str, Any]:
        """Mask i as COCO's tools take it."""
        return {"size": list(self.size), "counts": self.counts[i]}


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, best first.

    Args:
        boxes: [D, 4].
        scores: [D] in 0..1.
        classes: [D] int64 in 0..K-1.
        index: [D] int64, which proposal each came from.
        masks: [D, M, M] probabilities 0..1 in the frame of each box (M is 28 as a rule), or None. Pasted into the image
            only where that is needed, so that they cost little to move and boxes can be scaled under them.
        keypoints: [D, J, 3] x, y and score, or None.
        encoded_masks: the masks pasted into the original image, or None: what inference over a data set keeps in place of
            `masks`, so that memory and messages between processes stay small.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    index: Tensor
    masks: Tensor | None = None
    keypoints: Tensor | None = None
    encoded_masks: EncodedMasks | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor) -> Detections:
        """Some of the detections.

        Args:
            index: [n] int64 or [D] bool.
        """
        return self._each(lambda column: column[index])

    def to(self, device: torch.device | str) -> Detections:
        return self._each(lambda column: column.to(device))

    def _each(self, change: Callable[[Any], Any]) -> Detections:
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(column) for name, column in columns.items() if column is not None})


@dataclass(frozen=True)
class Output:
    """What a detector returns.

    Args:
        detections: B Detections in the pixels of the original images; None in training mode.
        losses: name -> scalar; keys that start with "loss" are summed, others ("rpn/num_positive") are only logged.
    """

    detections: Sequence[Detections] | None
    losses: dict[str, Tensor]
