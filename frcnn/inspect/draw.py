"""Pictures of objects: masks, keypoints and labelled boxes on a copy of the image. Pictures are RGB."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frcnn.data.images import opencv
from frcnn.data.roles import Category, Sample
from frcnn.errors import UserError
from frcnn.inspect.boxes import class_color, draw_boxes
from frcnn.inspect.objects import Objects, annotated_objects, detected_objects
from frcnn.inspect.shapes import draw_keypoints, draw_mask
from frcnn.structures import Detections


def draw_objects(image: np.ndarray, objects: Objects) -> np.ndarray:
    """A copy of the image with every object, the first on top; boxes and labels lie over keypoints, these over masks.

    Args:
        image: [h, w, 3] uint8 RGB.
        objects: in pixels of the image.
    """
    canvas = np.ascontiguousarray(image).copy()
    colors = [class_color(k) for k in objects.classes.tolist()]
    if objects.mask_of is not None:
        for i in reversed(range(len(objects))):
            draw_mask(canvas, objects.mask_of(i), colors[i])
    if objects.keypoints is not None:
        for i in reversed(range(len(objects))):
            skeleton = objects.categories[int(objects.classes[i])].skeleton
            draw_keypoints(canvas, objects.keypoints[i], skeleton, colors[i])
    return draw_boxes(canvas, objects.boxes, objects.classes, objects.labels)


def draw_detections(
    image: np.ndarray, found: Detections, categories: Sequence[Category], *, score_thresh: float = 0.0
) -> np.ndarray:
    """A copy of the image with its detections, each labelled such as "cat 0.93"; the best lies on top.

    Args:
        image: [h, w, 3] uint8 RGB.
        found: in pixels of the image.
        categories: of the classes.
        score_thresh: detections below this score are not drawn.
    """
    size = (int(image.shape[0]), int(image.shape[1]))
    return draw_objects(image, detected_objects(found, categories, size, score_thresh))


def draw_ground_truth(sample: Sample, categories: Sequence[Category]) -> np.ndarray:
    """A copy of the sample's image with every object, each labelled with the name of its class.

    Args:
        sample: as the data set gives it, or transformed.
        categories: of the classes.
    """
    return draw_objects(sample.image, annotated_objects(sample, categories))


def save_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes an RGB image in the format that the file's ending names.

    Raises:
        UserError: the ending names no format that OpenCV writes.
    """
    cv2 = opencv()
    path = Path(path)
    try:
        done, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        raise UserError(
            f"{path}: cannot write a picture as {path.suffix or 'a file without an ending'}; use .png or .jpg"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())
