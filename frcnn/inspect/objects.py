"""Objects as a picture shows them, made of detections, of a sample or of ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from frcnn.data.roles import Category, GroundTruth, Sample
from frcnn.data.run_lengths import object_mask
from frcnn.errors import UserError
from frcnn.ops.encoding import with_encoded_masks
from frcnn.structures import Detections, EncodedMasks

MaskOf = Callable[[int], np.ndarray]
"""i -> the mask of object i, [h, w] uint8 0 or 1. Made when it is drawn, so that one exists at a time."""


@dataclass(frozen=True)
class Objects:
    """Objects of one image, the first to be drawn on top.

    Args:
        boxes: [n, 4] x1 y1 x2 y2 in pixels of the image.
        classes: [n], which choose colours.
        labels: n texts.
        categories: of the classes 0..K-1.
        mask_of: gives the mask of an object, in the size of the image; None without masks.
        keypoints: [n, J, 3] x, y and score or visibility; None without keypoints.
    """

    boxes: np.ndarray
    classes: np.ndarray
    labels: Sequence[str]
    categories: Sequence[Category]
    mask_of: MaskOf | None = None
    keypoints: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.boxes.shape[1] != 4:
            raise UserError(
                f"pictures show boxes of four numbers, x1 y1 x2 y2, and these have {self.boxes.shape[1]}; "
                "in training, leave them out with hooks.pictures=null"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def scaled(self, x: float, y: float) -> Objects:
        """The same objects on a picture that is x times as wide and y times as high; masks are resized when drawn."""
        keypoints = None if self.keypoints is None else self.keypoints * np.array([x, y, 1])
        return replace(self, boxes=self.boxes * np.array([x, y, x, y]), keypoints=keypoints)


def detected_objects(
    found: Detections, categories: Sequence[Category], image_size: tuple[int, int], score_thresh: float = 0.0
) -> Objects:
    """Detections, each labelled such as "cat 0.93", the best on top.

    Args:
        found: in pixels of the image.
        categories: of the classes.
        image_size: (h, w), into which masks are pasted that are not yet.
        score_thresh: those below this score are left out.
    """
    found = found.select(found.scores >= score_thresh).to("cpu")
    found = with_encoded_masks(found.select(found.scores.argsort(descending=True, stable=True)), image_size)
    classes, scores = found.classes.numpy(), found.scores.float().tolist()
    return Objects(
        boxes=found.boxes.float().numpy(),
        classes=classes,
        labels=[f"{categories[k].name} {score:.2f}" for k, score in zip(classes.tolist(), scores, strict=True)],
        categories=categories,
        mask_of=None if found.encoded_masks is None else decoder(found.encoded_masks),
        keypoints=None if found.keypoints is None else found.keypoints.float().numpy(),
    )


def annotated_objects(sample: Sample, categories: Sequence[Category]) -> Objects:
    """What the annotations say of a sample, also of one that was transformed."""
    masks, (height, width) = sample.masks, sample.image.shape[:2]

    def mask_of(i: int) -> np.ndarray:
        assert masks is not None
        raster = masks[i].raster(height, width)
        x1, y1, x2, y2 = raster.window
        mask = np.zeros((height, width), np.uint8)
        mask[y1:y2, x1:x2] = raster.pixels
        return mask

    return Objects(
        boxes=sample.boxes,
        classes=sample.classes,
        labels=[categories[k].name for k in sample.classes.tolist()],
        categories=categories,
        mask_of=None if masks is None else mask_of,
        keypoints=sample.keypoints,
    )


def with_masks_of(objects: Objects, ground_truth: GroundTruth, image: int) -> Objects:
    """The objects of an untransformed sample with the masks of the ground truth: test sets often read none themselves.

    Args:
        objects: of the image, crowds left out.
        ground_truth: of the data set.
        image: index of the image in it.
    """
    index = np.flatnonzero((ground_truth.image_index == image) & ~ground_truth.iscrowd)
    if ground_truth.segmentation is None or len(index) != len(objects):
        return objects
    return replace(objects, mask_of=lambda i: object_mask(ground_truth, int(index[i])))


def decoder(masks: EncodedMasks) -> MaskOf:
    """Gives single masks out of run lengths."""
    from pycocotools import mask as coco_mask

    return lambda i: np.asarray(coco_mask.decode(masks.rle(i)))
