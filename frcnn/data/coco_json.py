"""A COCO annotation file as columns: typed, fast, and with an address for every mistake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from frcnn.data.json_text import decode_document, decode_each, map_file, source_of
from frcnn.data.keypoints import keypoint_columns, keypoint_names
from frcnn.data.roles import Category
from frcnn.errors import UserError

NO_ID = np.iinfo(np.int64).min
CHUNK = 4096
Number = float | None


class _Image(msgspec.Struct, gc=False):
    id: int
    height: int
    width: int
    file_name: str | None = None
    coco_url: str | None = None
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str
    keypoints: tuple[str, ...] | None = None
    skeleton: list[tuple[int, int]] | None = None
    frequency: Literal["r", "c", "f"] | None = None


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[Number, Number, Number, Number]
    id: int | None = None
    area: Number = None
    iscrowd: int | bool | None = 0
    difficult: int | bool | None = None


class _PointedAnnotation(_Annotation, gc=False):
    keypoints: list[Number] | None = None


@dataclass(frozen=True)
class CocoColumns:
    """What a COCO file says, unchecked, in the order of the file.

    Args:
        categories: sorted by id; class k is `categories[k]`.
        image_ids: [n] int64.
        image_sizes: [n, 2] int64 (h, w).
        file_names: n names.
        annotation_ids: [m] int64, `NO_ID` where there is none.
        annotation_image_ids: [m] int64.
        annotation_category_ids: [m] int64.
        bboxes: [m, 4] float64, x y w h, NaN where the file has NaN or null.
        areas: [m] float64, NaN where there is none.
        iscrowd: [m] bool.
        source: [m, 2] int64, first and one past the last byte of each annotation in the file.
        keypoints: [m, J, 3] float64 x, y, visibility, zeros where an object has none; None when they were not asked for.
        keypoint_numbers: [m] int64, how many numbers the file gives: 0, or 3 J if it is right; None likewise.
        difficult: [m] bool (Pascal VOC); all False where the file says nothing of it.
        absent: n lists of category ids that are not in the image (LVIS: neg_category_ids); None where no image has one.
        unfinished: n lists of category ids of which not every object is annotated (LVIS: not_exhaustive_category_ids);
            None likewise.
    """

    categories: tuple[Category, ...]
    image_ids: np.ndarray
    image_sizes: np.ndarray
    file_names: list[str]
    annotation_ids: np.ndarray
    annotation_image_ids: np.ndarray
    annotation_category_ids: np.ndarray
    bboxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    source: np.ndarray
    difficult: np.ndarray
    keypoints: np.ndarray | None = None
    keypoint_numbers: np.ndarray | None = None
    absent: list[list[int]] | None = None
    unfinished: list[list[int]] | None = None


def read_columns(path: str, *, keypoints: bool = False) -> CocoColumns:
    """Decodes the file.

    The annotations are first only cut out of the text, then decoded one by one. So a mistake has an index and an id,
    and the file is never in memory as objects: the peak is little more than the file itself.

    Args:
        path: the file.
        keypoints: whether to read those too; without, they cost nothing.

    Raises:
        UserError: the file is missing, is no JSON, is not of COCO's form, or holds a value of the wrong type.
    """
    document, buffer, shifts = decode_document(map_file(path), path)
    images = decode_each(document.images, _Image, path, "images")
    categories = _categories(decode_each(document.categories, _Category, path, "categories"), path)
    num_keypoints = len(keypoint_names(categories, path)) if keypoints else None
    return CocoColumns(
        categories=categories,
        image_ids=np.array([image.id for image in images], np.int64),
        image_sizes=np.array([(image.height, image.width) for image in images], np.int64).reshape(-1, 2),
        file_names=[_file_name(image, index, path) for index, image in enumerate(images)],
        absent=_lists([image.neg_category_ids for image in images]),
        unfinished=_lists([image.not_exhaustive_category_ids for image in images]),
        source=source_of(document.annotations, buffer, shifts),
        **_annotation_columns(document.annotations, path, num_keypoints),
    )


def _file_name(image: _Image, index: int, path: str) -> str:
    """LVIS gives an address instead, whose last two parts are the folder and the name of the file: val2017/000000000139.jpg."""
    if image.file_name is not None:
        return image.file_name
    if image.coco_url is not None:
        return "/".join(image.coco_url.split("/")[-2:])
    raise UserError(
        f"{path}: images[{index}] (id {image.id}): Object missing required field `file_name`; correct the value in the file"
    )


def _lists(values: Sequence[list[int] | None]) -> list[list[int]] | None:
    return None if all(value is None for value in values) else [value or [] for value in values]


def _categories(rows: Sequence[_Category], path: str) -> tuple[Category, ...]:
    """Sorted by id; a skeleton counts from 1 in the file and from 0 here."""
    for row in rows:
        names = row.keypoints or ()
        wrong = [bone for bone in row.skeleton or () if min(bone) < 1 or max(bone) > len(names)]
        if wrong:
            raise UserError(
                f"{path}: category id {row.id} has {len(names)} keypoints, and its skeleton joins {list(wrong[0])}; "
                f"expected numbers in 1..{len(names)}; correct 'skeleton' in the file"
            )
    return tuple(
        Category(
            row.id, row.name, row.keypoints or (), tuple((a - 1, b - 1) for a, b in row.skeleton or ()), row.frequency
        )
        for row in sorted(rows, key=lambda row: row.id)
    )


def _annotation_columns(items: Sequence[msgspec.Raw], path: str, num_keypoints: int | None) -> dict[str, np.ndarray]:
    chunks = []
    kind = _Annotation if num_keypoints is None else _PointedAnnotation
    for first in range(0, max(len(items), 1), CHUNK):
        rows = decode_each(items[first : first + CHUNK], kind, path, "annotations", first)
        try:
            chunks.append(_columns(rows))
            if num_keypoints is not None:
                chunks[-1].update(keypoint_columns([getattr(row, "keypoints", None) for row in rows], num_keypoints))
        except OverflowError as error:
            raise UserError(
                f"{path}: annotations {first} to {first + len(rows) - 1}: an id does not fit in 64 bits"
            ) from error
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _columns(rows: Sequence[_Annotation]) -> dict[str, np.ndarray]:
    return {
        "annotation_ids": np.array([NO_ID if row.id is None else row.id for row in rows], np.int64),
        "annotation_image_ids": np.array([row.image_id for row in rows], np.int64),
        "annotation_category_ids": np.array([row.category_id for row in rows], np.int64),
        "bboxes": np.array([row.bbox for row in rows], np.float64).reshape(-1, 4),
        "areas": np.array([row.area for row in rows], np.float64),
        "iscrowd": np.array([bool(row.iscrowd) for row in rows], bool),
        "difficult": np.array([bool(row.difficult) for row in rows], bool),
    }
