"""What can be wrong with the annotations of a file, found with whole-array arithmetic and told to a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from frcnn.data.coco_json import NO_ID, CocoColumns
from frcnn.errors import UserError

EXAMPLES = 3
OVERHANG_TOLERANCE = 1.0

Cause = tuple[str, np.ndarray, Callable[[int], str]]
"""The fields of a `Fault`, the mask still with the annotations of earlier causes."""


@dataclass(frozen=True)
class Fault:
    """One cause for which annotations cannot be used.

    Args:
        cause: the cause in words.
        mask: [m] bool, the annotations it applies to and no earlier cause does.
        value: the faulty value of annotation i, in words, with what was expected.
    """

    cause: str
    mask: np.ndarray
    value: Callable[[int], str]


def check_lists(columns: CocoColumns, path: str) -> None:
    """Stops on what no annotation can be right under: no images or categories, one id twice, images without a size.

    Raises:
        UserError: with the ids.
    """
    if not len(columns.image_ids):
        raise UserError(f"{path}: the list 'images' is empty; expected at least one image")
    if not columns.categories:
        raise UserError(f"{path}: the list 'categories' is empty; expected at least one category with 'id' and 'name'")
    for what, ids in (("image", columns.image_ids), ("category", np.array([c.id for c in columns.categories]))):
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise UserError(
                f"{path}: {(counts > 1).sum()} {what} ids are given more than once, such as {values[counts > 1][0]} "
                f"({counts.max()} times); give every {what} an id of its own"
            )
    empty = np.flatnonzero((columns.image_sizes <= 0).any(axis=1))
    if len(empty):
        height, width = columns.image_sizes[empty[0]]
        raise UserError(
            f"{path}: {len(empty)} images have no size, such as image id {columns.image_ids[empty[0]]}: "
            f"width {width}, height {height}; expected the size in pixels"
        )


def look_up(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[m]: the position of each id in `known`, -1 where it is not there."""
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], ids).clip(max=len(known) - 1)
    return np.where(known[order][place] == ids, order[place], -1)


def find_faults(
    columns: CocoColumns, image_index: np.ndarray, classes: np.ndarray, further: Sequence[Cause] = ()
) -> list[Fault]:
    """The annotations that cannot be used, by cause.

    Args:
        columns: the file.
        image_index: [m], -1 where the image is unknown.
        classes: [m], -1 where the category is unknown.
        further: causes that stand behind those of ids and boxes.
    """
    faults, seen = [], np.zeros(len(classes), bool)
    for cause, mask, value in (
        *_wrong_ids(columns, image_index, classes),
        *_wrong_boxes(columns, image_index),
        *further,
    ):
        if (mask & ~seen).any():
            faults.append(Fault(cause, mask & ~seen, value))
            seen |= mask
    return faults


def _wrong_ids(columns: CocoColumns, image_index: np.ndarray, classes: np.ndarray) -> list[Cause]:
    category_ids = [category.id for category in columns.categories]
    known_ids = f"one of {category_ids}" if len(category_ids) <= 10 else f"one of the {len(category_ids)} categories"

    def image_id(i: int) -> str:
        return f"image_id {columns.annotation_image_ids[i]}, expected one of the {len(columns.image_ids)} images"

    def category_id(i: int) -> str:
        return f"category_id {columns.annotation_category_ids[i]}, expected {known_ids}"

    return [
        ("with an unknown image", image_index < 0, image_id),
        ("with an unknown category", classes < 0, category_id),
    ]


def _wrong_boxes(columns: CocoColumns, image_index: np.ndarray) -> list[Cause]:
    x, y, w, h = columns.bboxes.T
    height, width = columns.image_sizes[image_index].T
    with np.errstate(invalid="ignore", over="ignore"):
        x1, y1, x2, y2 = (value.astype(np.float32) for value in (x, y, x + w, y + h))
        not_finite = ~np.isfinite(columns.bboxes).all(axis=1)
        # Boxes are float32 from here on, and one that is 1e-9 px wide at x = 100 has no width in float32.
        thin = (w <= 0) | (h <= 0) | (x2 <= x1) | (y2 <= y1)
        outside = (np.minimum(x2, width) <= np.maximum(x1, 0)) | (np.minimum(y2, height) <= np.maximum(y1, 0))

    def finite(i: int) -> str:
        return f"bbox {columns.bboxes[i].tolist()}, expected four finite numbers"

    def positive(i: int) -> str:
        return f"bbox {columns.bboxes[i].tolist()} (x, y, width, height), expected width > 0 and height > 0"

    def inside(i: int) -> str:
        box, size = columns.bboxes[i].tolist(), f"{width[i]} wide and {height[i]} high"
        return f"bbox {box}, expected a part of it inside the image, which is {size}"

    return [
        ("with NaN or infinity in the box", not_finite, finite),
        ("with width or height <= 0", thin, positive),
        ("wholly outside the image", outside, inside),
    ]


def keypoint_causes(columns: CocoColumns) -> list[Cause]:
    """What hinders annotations from being learnt as keypoints; nothing where keypoints were not asked for."""
    if columns.keypoints is None or columns.keypoint_numbers is None:
        return []
    keypoints, numbers = columns.keypoints, columns.keypoint_numbers
    length = 3 * keypoints.shape[1]
    not_finite = ~np.isfinite(keypoints).all(axis=(1, 2))
    visibility = keypoints[..., 2]  # [m, J]
    unknown = np.asarray(~np.isin(visibility, (0, 1, 2)).all(axis=1))

    def as_many(i: int) -> str:
        return f"keypoints of {numbers[i]} numbers, expected {length}: x, y, visibility of {length // 3} keypoints"

    def finite(i: int) -> str:
        return f"keypoint {int(np.argmin(np.isfinite(keypoints[i]).all(axis=1)))} holds NaN, expected finite numbers"

    def known(i: int) -> str:
        point = int(np.argmin(np.isin(visibility[i], (0, 1, 2))))
        return f"keypoint {point} has the visibility {visibility[i, point]:g}, expected 0 (not labelled), 1 (hidden) or 2 (seen)"

    return [
        ("with keypoints of a wrong number", (numbers != 0) & (numbers != length), as_many),
        ("with NaN or infinity in the keypoints", not_finite, finite),
        ("with an unknown visibility", unknown, known),
    ]


def describe_faults(columns: CocoColumns, faults: list[Fault]) -> str:
    """Counts by cause, with the first annotations of each."""
    parts = []
    for fault in faults:
        found = np.flatnonzero(fault.mask)
        examples = "; ".join(f"{name_of(columns, i)}: {fault.value(i)}" for i in found[:EXAMPLES].tolist())
        more = ", ..." if len(found) > EXAMPLES else ""
        parts.append(f"{len(found)} {fault.cause} ({examples}{more})")
    return "; ".join(parts)


def name_of(columns: CocoColumns, index: int) -> str:
    """How an annotation is named to a person: by its id if it has one, and the image's."""
    own_id = columns.annotation_ids[index]
    name = f"annotations[{index}], which has no id," if own_id == NO_ID else f"annotation {own_id}"
    return f"{name} of image {columns.annotation_image_ids[index]}"


def guess_box_format(bboxes: np.ndarray, image_sizes: np.ndarray) -> str | None:
    """Says so when boxes look as if they were not x, y, width, height in pixels.

    Normalised: not one number is above 1, and there are fractions. Corners: read as x y w h, many boxes overhang the
    image, and read as x1 y1 x2 y2, (nearly) every one is a box inside it.

    Args:
        bboxes: [m, 4], the finite boxes of known images.
        image_sizes: [m, 2] (h, w) of each box's image.

    Returns:
        the guess as a sentence, or None.
    """
    if not len(bboxes):
        return None
    if np.abs(bboxes).max() <= 1.05 and (bboxes % 1 != 0).any() and (image_sizes > 2).all():
        return (
            f"all {len(bboxes)} boxes look normalised: no number is above {bboxes.max():.4g}, such as "
            f"{bboxes[0].tolist()}; expected [x, y, width, height] in pixels: multiply by the image's width and height"
        )
    overhangs = overhang(bboxes, image_sizes) > OVERHANG_TOLERANCE
    limits = image_sizes[:, ::-1] + OVERHANG_TOLERANCE  # [m, 2]
    corners = (bboxes[:, 2:] > bboxes[:, :2]) & (bboxes[:, 2:] <= limits) & (bboxes[:, :2] >= -OVERHANG_TOLERANCE)
    if corners.all(axis=1).mean() >= 0.99 and overhangs.sum() >= max(2, 0.2 * len(bboxes)):
        return (
            f"the boxes look like [x1, y1, x2, y2]: as [x, y, width, height], {overhangs.sum()} of {len(bboxes)} reach "
            f"out of their image, such as {bboxes[overhangs][0].tolist()}, and as corners nearly all lie inside; "
            "expected [x, y, width, height]: subtract the first two numbers from the last two (or, if they are just "
            "that, clip them to their images)"
        )
    return None


def overhang(bboxes: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    """[m]: by how many pixels each x y w h box reaches out of its image (0 or less: not at all)."""
    before = -bboxes[:, :2]
    behind = bboxes[:, :2] + bboxes[:, 2:] - image_sizes[:, ::-1]
    return np.maximum(before, behind).max(axis=1, initial=-np.inf)
