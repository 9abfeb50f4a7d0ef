"""What a detector found in one image, in forms that people and other programs use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from frcnn.data.roles import Category
from frcnn.errors import UserError
from frcnn.evaluation.keypoints import pixel_indices
from frcnn.evaluation.results import as_json
from frcnn.inspect.draw import draw_objects, save_image
from frcnn.inspect.objects import Objects, decoder
from frcnn.ops.encoding import with_encoded_masks
from frcnn.structures import Detections, EncodedMasks


@dataclass(frozen=True)
class Prediction:
    """The objects found in one image, best first.

    Args:
        image: [h, w, 3] uint8 RGB.
        boxes: [D, 4] float32, x1 y1 x2 y2 in pixels of `image`.
        scores: [D] float32 in 0..1.
        classes: [D] int64 in 0..K-1.
        categories: of the classes.
        encoded_masks: the D masks as run lengths; None where the model gives none.
        keypoints: [D, J, 3] float32 x, y in pixels of `image`, and score; None where the model gives none.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    categories: Sequence[Category]
    encoded_masks: EncodedMasks | None = None
    keypoints: np.ndarray | None = None

    @classmethod
    def of(cls, found: Detections, image: np.ndarray, categories: Sequence[Category]) -> Prediction:
        """What a detector found.

        Args:
            found: in pixels of the image.
            image: [h, w, 3] uint8 RGB.
            categories: of the classes.
        """
        found = with_encoded_masks(found.to("cpu"), (int(image.shape[0]), int(image.shape[1])))
        return cls(
            image=image,
            boxes=found.boxes.float().numpy(),
            scores=found.scores.float().numpy(),
            classes=found.classes.numpy(),
            categories=categories,
            encoded_masks=found.encoded_masks,
            keypoints=None if found.keypoints is None else found.keypoints.float().numpy(),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def class_names(self) -> list[str]:
        """The class name of each object."""
        return [self.categories[index].name for index in self.classes]

    @property
    def masks(self) -> np.ndarray | None:
        """[D, h, w] bool, the masks in the whole image, made at each call; None where the model gives none."""
        if self.encoded_masks is None:
            return None
        masks = [self.mask(i) for i in range(len(self))]
        return np.stack(masks) if masks else np.zeros((0, *self.image.shape[:2]), bool)

    def mask(self, i: int) -> np.ndarray:
        """[h, w] bool, the mask of object i in the whole image.

        Raises:
            ValueError: the model gives no masks.
        """
        if self.encoded_masks is None:
            raise ValueError("the model gives no masks: it has no mask branch")
        return decoder(self.encoded_masks)(i).astype(bool)

    def above(self, score_thresh: float) -> Prediction:
        """The objects whose score is at least `score_thresh` in 0..1."""
        keep = self.scores >= score_thresh  # [D]
        return replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            classes=self.classes[keep],
            encoded_masks=None if self.encoded_masks is None else self.encoded_masks[torch.from_numpy(keep)],
            keypoints=None if self.keypoints is None else self.keypoints[keep],
        )

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """The objects as COCO results: category ids of the training data, boxes as x y w h, masks as run lengths.

        Keypoints are written as COCO's files have them, by the pixel they lie in.

        Args:
            image_id: the image's id in the results.
        """
        results: list[dict[str, Any]] = [
            {
                "image_id": image_id,
                "category_id": self.categories[index].id,
                "bbox": [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(score), 5),
            }
            for (x1, y1, x2, y2), score, index in zip(self.boxes, self.scores, self.classes, strict=True)
        ]
        for i, result in enumerate(results):
            if self.encoded_masks is not None:
                result["segmentation"] = as_json(self.encoded_masks.rle(i))
            if self.keypoints is not None:
                flat = pixel_indices(self.keypoints[i : i + 1].astype(np.float64))[0].tolist()
                result["keypoints"] = [round(value, 3) for value in flat]
        return results

    def draw(self) -> np.ndarray:
        """The image with its masks, keypoints, boxes, names and scores: [h, w, 3] uint8 RGB."""
        return draw_objects(
            self.image,
            Objects(
                boxes=self.boxes,
                classes=self.classes,
                labels=[f"{name} {score:.2f}" for name, score in zip(self.class_names, self.scores, strict=True)],
                categories=self.categories,
                mask_of=None if self.encoded_masks is None else self.mask,
                keypoints=self.keypoints,
            ),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the annotated image; the format follows the file's ending (.jpg, .png).

        Raises:
            UserError: the file cannot be written.
        """
        try:
            save_image(path, self.draw())
        except OSError as error:
            raise UserError(f"{path}: the annotated image cannot be written: {error.strerror}") from error
