"""The detections of many images as columns of numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from frcnn.structures import Detections


@dataclass(frozen=True)
class DetectionColumns:
    """Every detection of every image, image after image, in the order in which they came.

    Args:
        image_ids: [D] int64.
        boxes: [D, 4] float64, x1 y1 x2 y2; or as many numbers as the detector's boxes have.
        scores: [D] float64.
        classes: [D] int64.
        masks: D run lengths {"size", "counts"}; None where an image has detections and no pasted masks.
        keypoints: [D, J, 3] float64 x, y, score; None where an image has detections and no keypoints.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: tuple[dict[str, Any], ...] | None = None
    keypoints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, detections: Mapping[int, Detections]) -> DetectionColumns:
        counts = [len(found) for found in detections.values()]
        width = max((found.boxes.shape[-1] for found in detections.values()), default=4)

        def column(name: str, dtype: torch.dtype, width: tuple[int, ...] = ()) -> np.ndarray:
            parts = [getattr(found, name).detach().cpu().to(dtype).reshape(-1, *width) for found in detections.values()]
            return torch.cat(parts).numpy() if parts else torch.zeros((0, *width), dtype=dtype).numpy()

        return cls(
            image_ids=np.repeat(np.fromiter(detections, dtype=np.int64, count=len(counts)), counts),
            boxes=column("boxes", torch.float64, (width,)),
            scores=column("scores", torch.float64),
            classes=column("classes", torch.int64),
            masks=_masks([found for found in detections.values() if len(found)]),
            keypoints=_keypoints([found for found in detections.values() if len(found)]),
        )

    def where(self, mask: np.ndarray) -> DetectionColumns:
        """The detections for which `mask` [D] is true."""
        return self.at(np.flatnonzero(mask))

    def at(self, index: np.ndarray) -> DetectionColumns:
        """The detections at `index` [n], in its order."""
        return DetectionColumns(
            self.image_ids[index],
            self.boxes[index],
            self.scores[index],
            self.classes[index],
            None if self.masks is None else tuple(self.masks[i] for i in index.tolist()),
            None if self.keypoints is None else self.keypoints[index],
        )

    def is_finite(self) -> np.ndarray:
        """[D] bool: neither the box, the score nor a keypoint holds NaN or an infinity."""
        finite = np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.scores)
        return finite if self.keypoints is None else finite & np.isfinite(self.keypoints).all(axis=(1, 2))

    def boxes_in_files(self) -> np.ndarray:
        """[D, 4]: x1, y1, width, height, the form of COCO files; boxes that are not four numbers are written as they are."""
        return self.boxes_xywh() if self.boxes.shape[1] == 4 else self.boxes

    def boxes_xywh(self) -> np.ndarray:
        """[D, 4]: x1, y1, width, height."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)


def _masks(detections: list[Detections]) -> tuple[dict[str, Any], ...] | None:
    encoded = [found.encoded_masks for found in detections if found.encoded_masks is not None]
    if len(encoded) < len(detections):
        return None
    return tuple(masks.rle(i) for masks in encoded for i in range(len(masks)))


def _keypoints(detections: list[Detections]) -> np.ndarray | None:
    parts = [found.keypoints.detach().cpu().double() for found in detections if found.keypoints is not None]
    if len(parts) < len(detections):
        return None
    return torch.cat(parts).numpy() if parts else np.zeros((0, 0, 3))
