"""Detections read back from COCO's result JSON, of this framework or any other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from frcnn.data.roles import Category
from frcnn.errors import UserError
from frcnn.structures import Detections, EncodedMasks

PIXEL_CENTER = 0.5  # a file gives the pixel that a keypoint lies in


class Row(msgspec.Struct):
    """One detection of a file.

    Args:
        image_id: as in the annotations.
        category_id: as in the annotations.
        score: in 0..1.
        bbox: x, y, width, height; may be missing beside a segmentation.
        segmentation: run lengths {"size": [h, w], "counts": text}.
        keypoints: J times x, y, score.
    """

    image_id: int
    category_id: int
    score: float
    bbox: tuple[float, float, float, float] | None = None
    segmentation: dict[str, Any] | None = None
    keypoints: list[float] | None = None


def load_coco_results(path: str | os.PathLike[str], categories: Sequence[Category]) -> dict[int, Detections]:
    """Image id -> what a file of results says was found in it, best first.

    Args:
        path: a JSON file, a list of {"image_id", "category_id", "score", "bbox", ...}.
        categories: of the data set; class k is `categories[k]`.

    Raises:
        UserError: the file is missing, is no such list, or names a category that the data set does not have.
    """
    try:
        rows = msgspec.json.decode(Path(path).read_bytes(), type=list[Row])
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file of results") from None
    except msgspec.MsgspecError as error:
        raise UserError(f"{path}: these are no results in COCO's form: {error}") from error
    class_of = {category.id: k for k, category in enumerate(categories)}
    unknown = {row.category_id for row in rows} - set(class_of)
    if unknown:
        raise UserError(
            f"{path}: category_id {min(unknown)} is none of the data set's {sorted(class_of)[:5]}...; are these results of "
            "another data set?"
        )
    of_image: dict[int, list[Row]] = {}
    for row in rows:
        of_image.setdefault(row.image_id, []).append(row)
    return {image_id: _detections(found, class_of, str(path)) for image_id, found in of_image.items()}


def _detections(rows: list[Row], class_of: Mapping[int, int], path: str) -> Detections:
    rows = sorted(rows, key=lambda row: -row.score)
    boxes = torch.tensor([_box(row, path) for row in rows], dtype=torch.float64).reshape(-1, 4)
    masks = [row.segmentation for row in rows]
    keypoints = [row.keypoints for row in rows]
    return Detections(
        boxes=boxes.float(),
        scores=torch.tensor([row.score for row in rows]),
        classes=torch.tensor([class_of[row.category_id] for row in rows], dtype=torch.int64),
        index=torch.arange(len(rows)),
        encoded_masks=None if None in masks else _encoded(masks, path),
        keypoints=None if None in keypoints else _keypoints(keypoints),
    )


def _box(row: Row, path: str) -> list[float]:
    from pycocotools import mask as coco_mask

    if row.bbox is not None:
        x, y, w, h = row.bbox
    elif row.segmentation is not None:
        x, y, w, h = coco_mask.toBbox(_run_lengths(row.segmentation)).tolist()
    else:
        raise UserError(f"{path}: a detection in image {row.image_id} has neither bbox nor segmentation")
    return [x, y, x + w, y + h]


def _run_lengths(segmentation: dict[str, Any]) -> dict[str, Any]:
    counts = segmentation["counts"]
    return {"size": segmentation["size"], "counts": counts.encode() if isinstance(counts, str) else counts}


def _encoded(masks: Sequence[dict[str, Any] | None], path: str) -> EncodedMasks:
    parts = [_run_lengths(mask) for mask in masks if mask is not None]
    sizes = {tuple(part["size"]) for part in parts}
    if len(sizes) != 1:
        raise UserError(f"{path}: the masks of one image have {len(sizes)} sizes, expected one: {sorted(sizes)[:3]}")
    height, width = sizes.pop()
    return EncodedMasks((height, width), tuple(part["counts"] for part in parts))


def _keypoints(keypoints: Sequence[list[float] | None]) -> torch.Tensor:
    points = np.array([point for point in keypoints if point is not None], np.float64)
    points = points.reshape(len(points), -1, 3) + np.array([PIXEL_CENTER, PIXEL_CENTER, 0.0])
    return torch.from_numpy(points).float()
