"""Detections beside the ground truth: pictures of single images, and a contact sheet of many. Pictures are RGB."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from frcnn.data.images import opencv
from frcnn.data.roles import Dataset, Sample
from frcnn.inspect.boxes import DARK, LIGHT, draw_text, text_size
from frcnn.inspect.draw import draw_objects, save_image
from frcnn.inspect.objects import Objects, annotated_objects, detected_objects, with_masks_of
from frcnn.structures import Detections

GAP = 8
SMALLEST_SIDE = 384
"""Images whose longer side is below this are enlarged, or their labels would cover them."""

SHEET_SIDE = 400
SHEET_COLUMNS = 2
GREY = (170, 174, 180)


def side_by_side(
    image: np.ndarray,
    ground_truth: Objects,
    detections: Objects,
    title: str,
    caption: str,
    longest_side: int | None = None,
) -> np.ndarray:
    """One picture: the title, below it the ground truth on the left and the detections on the right.

    Args:
        image: [h, w, 3] uint8 RGB.
        ground_truth: in pixels of the image.
        detections: in pixels of the image, those to be drawn.
        title: such as "val, image 17".
        caption: of the detections.
        longest_side: of each half in pixels; None keeps the image's size, and enlarges small images.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    image, factor = enlarged(image, longest_side)
    left = draw_objects(image, ground_truth.scaled(factor, factor))
    right = draw_objects(image, detections.scaled(factor, factor))
    halves = [_captioned(left, f"ground truth: {len(ground_truth)}"), _captioned(right, caption)]
    gap = np.full((halves[0].shape[0], GAP, 3), DARK, dtype=np.uint8)
    picture = np.hstack([halves[0], gap, halves[1]])
    return np.vstack([_bar(picture.shape[1], title, scale=0.5, color=LIGHT), picture])


def save_gallery(
    folder: str | os.PathLike[str],
    dataset: Dataset,
    detections: Mapping[int, Detections],
    *,
    title: str,
    num_images: int = 16,
    score_thresh: float = 0.5,
) -> list[Path]:
    """Writes pictures of some images of a data set, and all of them on `contact_sheet.png`.

    Args:
        folder: made where it does not exist.
        dataset: gives the images, as they are in their files, and the ground truth.
        detections: image id -> what was found, in pixels of the original images.
        title: what the images are of, such as the name of the test set; the image id is added.
        num_images: how many, spread evenly over the data set.
        score_thresh: detections below this score are not drawn.

    Returns:
        the files written, the contact sheet last.
    """
    folder, files, thumbnails = Path(folder), [], []
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(num_images, len(dataset))).astype(int)).tolist():
        sample = dataset[index]
        found = detections.get(sample.image_id, _nothing())
        objects = annotated_objects(sample, dataset.categories)
        if objects.mask_of is None and found.encoded_masks is not None:
            objects = with_masks_of(objects, dataset.ground_truth(), index)
        shown = _in_pixels_of(sample, detected_objects(found, dataset.categories, sample.original_size, score_thresh))
        caption = _caption(found, len(shown), score_thresh)
        draw = partial(side_by_side, sample.image, objects, shown, f"{title}, image {sample.image_id}", caption)
        files.append(folder / f"image_{sample.image_id}.png")
        save_image(files[-1], draw())
        # drawn again rather than made smaller, so that the labels can still be read
        thumbnails.append(draw(longest_side=SHEET_SIDE))
    if thumbnails:
        files.append(folder / "contact_sheet.png")
        save_image(files[-1], contact_sheet(thumbnails))
    return files


def _nothing() -> Detections:
    empty = torch.zeros(0)
    return Detections(empty.reshape(0, 4), empty, empty.long(), empty.long())


def enlarged(image: np.ndarray, longest_side: int | None) -> tuple[np.ndarray, float]:
    """The image at the size in which it is drawn, and by how much that is larger."""
    cv2 = opencv()
    longest = max(image.shape[:2])
    if longest_side is None:
        # whole multiples keep the pixels of a small image evenly wide
        factor = float(-(-SMALLEST_SIDE // longest)) if longest < SMALLEST_SIDE else 1.0
    else:
        factor = longest_side / longest
    if factor == 1:
        return image, 1.0
    size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA), factor


def _caption(found: Detections, num_shown: int, score_thresh: float) -> str:
    caption = f"detections: {num_shown} with score >= {score_thresh:.2f}"
    if not num_shown and len(found):
        return f"{caption} (the best is {found.scores.max().item():.2f})"
    return caption


def _captioned(image: np.ndarray, caption: str) -> np.ndarray:
    return np.vstack([_bar(image.shape[1], caption, scale=0.42, color=GREY), image])


def _bar(width: int, text: str, scale: float, color: tuple[int, int, int]) -> np.ndarray:
    """A dark strip with one line of text, made smaller where it would not fit."""
    while scale > 0.3 and text_size(text, scale)[0] > width - 2 * GAP:
        scale -= 0.02
    height = text_size("Ag", scale)[1]
    bar = np.full((height + 2 * GAP, width, 3), DARK, dtype=np.uint8)
    draw_text(bar, text, (GAP, GAP), scale, color)
    return bar


def _in_pixels_of(sample: Sample, objects: Objects) -> Objects:
    """Objects in pixels of the original image, in those of the sample's image."""
    (height, width), (original_height, original_width) = sample.image.shape[:2], sample.original_size
    return objects.scaled(width / original_width, height / original_height)


def contact_sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures in rows, each row as high as its highest."""
    columns = min(SHEET_COLUMNS, len(pictures))
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for start in range(0, len(pictures), columns):
        row = pictures[start : start + columns]
        strip = np.full((max(p.shape[0] for p in row) + 2 * GAP, columns * (width + 2 * GAP), 3), DARK, dtype=np.uint8)
        for column, picture in enumerate(row):
            x = column * (width + 2 * GAP) + GAP
            strip[GAP : GAP + picture.shape[0], x : x + picture.shape[1]] = picture
        rows.append(strip)
    return np.vstack(rows)
