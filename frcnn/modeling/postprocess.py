"""From a score for every class of every box to the detections of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from frcnn.modeling.roles import NMS
from frcnn.ops.boxes import large_mask
from frcnn.structures import Detections, ScoredBoxes


@dataclass(frozen=True)
class Postprocess:
    """Keeps what scores well, suppresses duplicates of a class, and keeps the best of the image.

    Args:
        nms: suppression of overlapping boxes of a class.
        score_thresh: boxes that do not score more than this are left out.
        detections_per_image: how many are kept at most.
        min_size: boxes with a shorter side, in pixels of the image the network sees, are left out before suppression;
            0 keeps all (detectron2), torchvision has 0.01.
    """

    nms: NMS
    score_thresh: float = 0.05
    detections_per_image: int = 100
    min_size: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.score_thresh <= 1:
            raise ValueError(f"score_thresh must be in [0, 1], got {self.score_thresh}")
        if self.detections_per_image < 1:
            raise ValueError(f"detections_per_image must be at least 1, got {self.detections_per_image}")
        if self.min_size < 0:
            raise ValueError(f"min_size must be 0 px or more, got {self.min_size}")


class SelectDetections(nn.Module):
    """Does what a `Postprocess` says, to one image at a time.

    Args:
        options: thresholds, numbers and the suppression.
    """

    def __init__(self, options: Postprocess) -> None:
        super().__init__()
        self.nms = options.nms
        self.score_thresh = options.score_thresh
        self.detections_per_image = options.detections_per_image
        self.min_size = options.min_size

    def forward(self, scored: ScoredBoxes) -> Detections:
        """Chooses the detections of one image.

        Args:
            scored: boxes [r, K, 4], clipped to the image, and scores [r, K].

        Returns:
            detections, best first; `index` is the row in `scored` that each came from.
        """
        keep = scored.scores > self.score_thresh  # [r, K]
        keep &= large_mask(scored.boxes, self.min_size, inclusive=True)  # also drops boxes that are not a number
        row, classes = torch.where(keep)  # [n] each
        boxes, scores = scored.boxes[row, classes], scored.scores[row, classes]
        index, scores = self.nms(boxes, scores, classes)
        index, scores = index[: self.detections_per_image], scores[: self.detections_per_image]
        return Detections(boxes[index], scores, classes[index], row[index])
