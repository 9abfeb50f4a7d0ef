"""The detections of many images as columns of numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from frcnn.structures import Detections


@dataclass(frozen=True)
class DetectionColumns:
    """Every detection of every image, image after image, in the order in which they came.

    Args:
        image_ids: [D] int64.
        boxes: [D, 4] float64, x1 y1 x2 y2.
        scores: [D] float64.
        classes: [D] int64.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, detections: Mapping[int, Detections]) -> DetectionColumns:
        counts = [len(found) for found in detections.values()]

        def column(name: str, dtype: torch.dtype, width: tuple[int, ...] = ()) -> np.ndarray:
            parts = [getattr(found, name).detach().cpu().to(dtype).reshape(-1, *width) for found in detections.values()]
            return torch.cat(parts).numpy() if parts else torch.zeros((0, *width), dtype=dtype).numpy()

        return cls(
            image_ids=np.repeat(np.fromiter(detections, dtype=np.int64, count=len(counts)), counts),
            boxes=column("boxes", torch.float64, (4,)),
            scores=column("scores", torch.float64),
            classes=column("classes", torch.int64),
        )

    def where(self, mask: np.ndarray) -> DetectionColumns:
        """The detections for which `mask` [D] is true."""
        return DetectionColumns(self.image_ids[mask], self.boxes[mask], self.scores[mask], self.classes[mask])

    def is_finite(self) -> np.ndarray:
        """[D] bool: neither the box nor the score holds NaN or an infinity."""
        return np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.scores)

    def boxes_xywh(self) -> np.ndarray:
        """[D, 4]: x1, y1, width, height, the form of COCO files."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
