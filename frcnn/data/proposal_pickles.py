"""Proposals in detectron2's form, a `.pkl` of lists: what its proposal models write and its Fast R-CNN reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frcnn.errors import UserError
from frcnn.pickles import read_numpy_pickle

_OLD_NAMES = {"indexes": "ids", "scores": "objectness_logits"}  # Detectron's
_BOX_MODES = ("XYXY_ABS", "XYWH_ABS", "XYXY_REL", "XYWH_REL", "XYWHA_ABS")
_FORM = (
    "expected detectron2's proposals: a dict with ids, boxes (an [n, 4] array for each id) and objectness_logits (an [n] "
    "array for each id)"
)


class PickledProposals(NamedTuple):
    """What a file says, image by image.

    Args:
        rows: image id -> its place in the lists.
        boxes: for each image [n, 4] in pixels, x1 y1 x2 y2 or x y width height.
        scores: for each image [n].
        is_xywh: whether width and height stand in place of the second corner.
    """

    rows: dict[int, int]
    boxes: Sequence[np.ndarray]
    scores: Sequence[np.ndarray]
    is_xywh: bool


def read_pickled(path: str) -> PickledProposals:
    """Reads a file; the boxes are looked at by `best_of`.

    Args:
        path: a pickle of a dict; Detectron's names `indexes` and `scores` mean the same. Nothing in it is run.

    Raises:
        UserError: the file is not of that form, holds more than numbers, or its boxes are not in pixels.
    """
    content = read_numpy_pickle(Path(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; {_FORM}")
    content = {_OLD_NAMES.get(key, key): value for key, value in content.items()}
    columns: list[Any] = [content.get(key) for key in ("ids", "boxes", "objectness_logits")]
    if not all(isinstance(column, list | tuple | np.ndarray) for column in columns):
        raise UserError(f"{path}: has the keys {', '.join(map(str, content))}; {_FORM}")
    ids, boxes, scores = columns
    if not len(ids) == len(boxes) == len(scores):
        raise UserError(f"{path}: {len(ids)} ids, {len(boxes)} boxes and {len(scores)} objectness_logits; {_FORM}")
    if not all(isinstance(array, np.ndarray) for array in (*boxes, *scores)):
        raise UserError(f"{path}: its boxes or objectness_logits are not all arrays; {_FORM}")
    mode = content.get("bbox_mode", 0)
    if not isinstance(mode, int) or mode not in (0, 1):
        name = _BOX_MODES[mode] if isinstance(mode, int) and 0 <= mode < len(_BOX_MODES) else repr(mode)
        raise UserError(f"{path}: its bbox_mode is {name}; expected XYXY_ABS (0) or XYWH_ABS (1), boxes in pixels")
    rows = {_number(path, i, name): i for i, name in enumerate(ids)}
    if len(rows) < len(ids):
        raise UserError(f"{path}: {len(ids) - len(rows)} of its {len(ids)} ids are there before; {_FORM}")
    return PickledProposals(rows, boxes, scores, mode == 1)


def best_of(found: PickledProposals, image_id: int, path: str, top_n: int) -> np.ndarray:
    """The best proposals of an image, those without area left out, as detectron2 does.

    Args:
        found: of the file.
        image_id: one of its images.
        path: of the file, for messages.
        top_n: how many are kept.

    Returns:
        [P, 4] float32 x1 y1 x2 y2, the best first.

    Raises:
        UserError: the boxes cannot be used.
    """
    row = found.rows[image_id]
    where = f"{path}: boxes[{row}] of image {image_id}"
    boxes, scores = found.boxes[row], found.scores[row].reshape(-1).astype(np.float64)
    if boxes.shape != (len(scores), 4) and (boxes.size or scores.size):
        raise UserError(
            f"{where}: its shape is {list(boxes.shape)}, and there are {len(scores)} objectness_logits; {_FORM}"
        )
    boxes = boxes.reshape(-1, 4).astype(np.float64)
    shortest = (boxes[:, 2:] if found.is_xywh else boxes[:, 2:] - boxes[:, :2]).min(axis=1)  # [n]
    wrong = np.flatnonzero(~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (shortest >= 0)))
    if len(wrong):
        form = "x, y, width, height" if found.is_xywh else "x1, y1, x2, y2"
        raise UserError(
            f"{where}: {len(wrong):,} of {len(boxes):,} cannot be used, such as {boxes[wrong[0]].tolist()} ({form}), score "
            f"{scores[wrong[0]]:g}; expected finite numbers and no negative width or height; is bbox_mode right?"
        )
    order = np.argsort(-scores, kind="stable")  # [n]
    best = boxes[order[shortest[order] > 0][:top_n]]
    if found.is_xywh:
        best[:, 2:] += best[:, :2]
    return best.astype(np.float32)


def _number(path: str, index: int, name: Any) -> int:
    """An image id as COCO writes it; detectron2 compares them as text."""
    if isinstance(name, str) and name.isdecimal():
        return int(name)
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return int(name)
    raise UserError(f"{path}: ids[{index}] is {name!r}; expected a number, the image id in the annotation file")
