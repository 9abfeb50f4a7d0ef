"""From COCO's accumulated curves to its metrics, in 0..100."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from frcnn.evaluation.roles import Metrics

IOU_50, IOU_75 = slice(0, 1), slice(5, 6)  # places of these thresholds in 0.50, 0.55, ..., 0.95
ALL_IOU = slice(None)


@dataclass(frozen=True)
class PrecisionRecall:
    """COCO's accumulated curves; -1 where there is no object to find.

    Args:
        precision: [T, R, K, A, M]: IoU threshold, recall, class, area range, most detections an image.
        recall: [T, K, A, M].
    """

    precision: np.ndarray
    recall: np.ndarray

    def of_class(self, k: int) -> PrecisionRecall:
        return PrecisionRecall(self.precision[:, :, k : k + 1], self.recall[:, k : k + 1])

    def of_classes(self, classes: np.ndarray) -> PrecisionRecall:
        """The curves of some classes, [n] int64."""
        return PrecisionRecall(self.precision[:, :, classes], self.recall[:, classes])


@dataclass(frozen=True)
class Cut:
    """Which part of the curves a metric is the mean of.

    Args:
        curve: precision gives an AP, recall an AR.
        iou: which thresholds.
        area: place of the area range.
        limit: place of the limit on the detections of one image.
    """

    curve: Literal["precision", "recall"]
    iou: slice
    area: int
    limit: int

    def of(self, curves: PrecisionRecall) -> float | None:
        """The mean, in 0..100, over what exists; None where nothing does."""
        values = getattr(curves, self.curve)[self.iou, ..., self.area, self.limit]
        existing = values[values > -1]
        return 100.0 * float(np.mean(existing)) if existing.size else None


# area ranges: all, below 32^2, 32^2..96^2, above 96^2 square pixels; limits: 1, 10, 100 detections of a class and image
REGION_METRICS: Mapping[str, Cut] = {
    "AP": Cut("precision", ALL_IOU, 0, 2),
    "AP50": Cut("precision", IOU_50, 0, 2),
    "AP75": Cut("precision", IOU_75, 0, 2),
    "APs": Cut("precision", ALL_IOU, 1, 2),
    "APm": Cut("precision", ALL_IOU, 2, 2),
    "APl": Cut("precision", ALL_IOU, 3, 2),
    "AR@1": Cut("recall", ALL_IOU, 0, 0),
    "AR@10": Cut("recall", ALL_IOU, 0, 1),
    "AR@100": Cut("recall", ALL_IOU, 0, 2),
    "ARs": Cut("recall", ALL_IOU, 1, 2),
    "ARm": Cut("recall", ALL_IOU, 2, 2),
    "ARl": Cut("recall", ALL_IOU, 3, 2),
}
"""Of boxes and masks, in COCO's order."""

# area ranges: all, 32^2..96^2, above 96^2: people smaller than that have no keypoints in COCO; limit: 20 detections
KEYPOINT_METRICS: Mapping[str, Cut] = {
    "AP": Cut("precision", ALL_IOU, 0, 0),
    "AP50": Cut("precision", IOU_50, 0, 0),
    "AP75": Cut("precision", IOU_75, 0, 0),
    "APm": Cut("precision", ALL_IOU, 1, 0),
    "APl": Cut("precision", ALL_IOU, 2, 0),
    "AR": Cut("recall", ALL_IOU, 0, 0),
    "AR50": Cut("recall", IOU_50, 0, 0),
    "AR75": Cut("recall", IOU_75, 0, 0),
    "ARm": Cut("recall", ALL_IOU, 1, 0),
    "ARl": Cut("recall", ALL_IOU, 2, 0),
}
"""Of keypoints, in COCO's order; the object keypoint similarity stands for the IoU."""


def metrics_of(curves: PrecisionRecall, cuts: Mapping[str, Cut], prefix: str = "") -> Metrics:
    return {f"{prefix}{name}": cut.of(curves) for name, cut in cuts.items()}
