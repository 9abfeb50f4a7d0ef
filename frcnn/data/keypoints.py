"""Keypoints: what they are called, which of them a mirror exchanges, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frcnn.data.roles import Category
from frcnn.errors import UserError

PIXEL_CENTER = 0.5


def keypoint_names(categories: Sequence[Category], path: str) -> tuple[str, ...]:
    """The J names that every category with keypoints gives.

    Args:
        categories: of the data set.
        path: the annotation file, for messages.

    Raises:
        UserError: no category names keypoints, or two name others.
    """
    named = [category for category in categories if category.keypoints]
    if not named:
        raise UserError(
            f"{path}: keypoints: true asks for keypoints, but none of the {len(categories)} categories names any; expected "
            "a list 'keypoints' in 'categories'; use a file that has them, or set keypoints: false"
        )
    for category in named[1:]:
        if category.keypoints != named[0].keypoints:
            raise UserError(
                f"{path}: category {named[0].name} has the keypoints {', '.join(named[0].keypoints)}, and "
                f"{category.name} has {', '.join(category.keypoints)}; expected the same for both: give both lists all "
                "names, and visibility 0 to those that an object does not have"
            )
    return named[0].keypoints


def mirror_index(names: Sequence[str]) -> np.ndarray:
    """[J] int64: for each keypoint the one whose place it takes in a mirror, itself as a rule.

    The partner of a name with "left" in it has "right" in its place: left_eye and right_eye.
    """
    place = {name: index for index, name in enumerate(names)}
    partners = [_other_side(name) for name in names]
    return np.array([place.get(partner, place[name]) for name, partner in zip(names, partners, strict=True)], np.int64)


def _other_side(name: str) -> str:
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")


def keypoint_columns(rows: Sequence[Sequence[float | None] | None], num_keypoints: int) -> dict[str, np.ndarray]:
    """The keypoints of many annotations in one array, and how many numbers each annotation gave.

    A file gives the pixel that a point lies in. Here it lies at that pixel's centre, half a pixel to the right and below,
    so that points and boxes are in the same coordinates (detectron2 does so too).

    Args:
        rows: m lists x, y, visibility, x, ... or None.
        num_keypoints: J.

    Returns:
        keypoints [m, J, 3] float64, zeros where nothing is labelled or the list is of a wrong length, and
        keypoint_numbers [m] int64.
    """
    length = 3 * num_keypoints
    nothing = [0.0] * length
    flat = [row if row and len(row) == length else nothing for row in rows]
    keypoints = np.array(flat, np.float64).reshape(-1, num_keypoints, 3)
    keypoints[..., :2] = np.where(keypoints[..., 2:] == 0, 0, keypoints[..., :2] + PIXEL_CENTER)
    return {"keypoints": keypoints, "keypoint_numbers": np.array([len(row) if row else 0 for row in rows], np.int64)}


def labelled_inside(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """[G, J, 3] float32: keypoints outside an image of that size are not labelled; those are 0, 0, 0.

    Args:
        keypoints: [G, J, 3] x, y, visibility.
        height, width: in pixels.
    """
    x, y, visibility = np.moveaxis(keypoints, -1, 0)
    labelled = (visibility > 0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return np.where(labelled[..., None], keypoints, 0).astype(np.float32)
