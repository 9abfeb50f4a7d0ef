"""What a detector found in one image, in forms that people and other programs use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from frcnn.data.roles import Category
from frcnn.errors import UserError
from frcnn.inspect.boxes import draw_boxes
from frcnn.inspect.draw import save_image


@dataclass(frozen=True)
class Prediction:
    """The objects found in one image, best first.

    Args:
        image: [h, w, 3] uint8 RGB.
        boxes: [D, 4] float32, x1 y1 x2 y2 in pixels of `image`.
        scores: [D] float32 in 0..1.
        classes: [D] int64 in 0..K-1.
        categories: of the classes.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    categories: Sequence[Category]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def class_names(self) -> list[str]:
        """The class name of each object."""
        return [self.categories[index].name for index in self.classes]

    def above(self, score_thresh: float) -> Prediction:
        """The objects whose score is at least `score_thresh` in 0..1."""
        keep = self.scores >= score_thresh  # [D]
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], classes=self.classes[keep])

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """The objects as COCO results: category ids of the training data, boxes as x y w h.

        Args:
            image_id: the image's id in the results.
        """
        return [
            {
                "image_id": image_id,
                "category_id": self.categories[index].id,
                "bbox": [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(score), 5),
            }
            for (x1, y1, x2, y2), score, index in zip(self.boxes, self.scores, self.classes, strict=True)
        ]

    def draw(self) -> np.ndarray:
        """The image with its boxes, names and scores: [h, w, 3] uint8 RGB."""
        labels = [f"{name} {score:.2f}" for name, score in zip(self.class_names, self.scores, strict=True)]
        return draw_boxes(self.image, self.boxes, self.classes, labels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the annotated image; the format follows the file's ending (.jpg, .png).

        Raises:
            UserError: the file cannot be written.
        """
        try:
            save_image(path, self.draw())
        except OSError as error:
            raise UserError(f"{path}: the annotated image cannot be written: {error.strerror}") from error
