"""The segmentation of annotations, which stays in the file as bytes until it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from frcnn.data.annotation_checks import Cause
from frcnn.data.coco_json import CocoColumns
from frcnn.data.json_text import map_file, null_for_nan
from frcnn.data.masks import BitmapMask, Mask, PolygonMask
from frcnn.errors import UserError

ABSENT, WRONG = "absent", "wrong"
SHOWN = 80
"""Characters of a faulty segmentation in a message."""


class _Segmented(msgspec.Struct):
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class _RunLengths(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


class _Typed(msgspec.Struct):
    segmentation: list[list[float]] | _RunLengths | None = None


_decode_typed = msgspec.json.Decoder(_Typed).decode


def read_segmentation(path: str, start: int, stop: int) -> Any:
    """The `segmentation` of the annotation at these bytes of the file: polygons, RLE, or None."""
    with open(path, "rb") as file:
        file.seek(start)
        return decode_segmentation(file.read(stop - start))


def decode_segmentation(text: bytes) -> Any:
    """The `segmentation` of an annotation as the file has it, null for NaN."""
    try:
        annotation = msgspec.json.decode(text, type=_Segmented)
    except msgspec.DecodeError:
        annotation = msgspec.json.decode(null_for_nan(text)[0], type=_Segmented)
    return msgspec.json.decode(annotation.segmentation)


def has_segmentation(path: str, source: np.ndarray) -> bool:
    """Whether at least one annotation has a segmentation that is neither null nor empty.

    Args:
        path: the annotation file.
        source: [m, 2], first and one past the last byte of each annotation.
    """
    text = map_file(path)
    if text.find(b'"segmentation"') < 0:
        return False
    return any(decode_segmentation(text[slice(*row.tolist())]) for row in source)


def segmentation_causes(path: str, columns: CocoColumns, image_index: np.ndarray) -> list[Cause]:
    """What hinders annotations from being learnt as masks. Crowds are not learnt, and not looked at.

    Args:
        path: the annotation file.
        columns: what it says.
        image_index: [m], -1 where the image is unknown.

    Raises:
        UserError: not one annotation has a segmentation.
    """
    text = map_file(path)
    wanted = np.flatnonzero(~columns.iscrowd & (image_index >= 0))
    problems: dict[int, str] = {}
    for i in wanted.tolist():
        problem = _problem(text[slice(*columns.source[i].tolist())], columns.image_sizes[image_index[i]])
        if problem:
            problems[i] = problem
    absent = [i for i, problem in problems.items() if problem is ABSENT]
    if len(wanted) and len(absent) == len(wanted):
        raise UserError(
            f"{path}: masks: true asks for masks, but none of the {len(wanted):,} objects has a 'segmentation'; use a file "
            "that has them, or set masks: false and take the mask branch out of the model"
        )
    masks = {cause: np.zeros(len(columns.iscrowd), bool) for cause in (ABSENT, WRONG)}
    for i, problem in problems.items():
        masks[ABSENT if problem is ABSENT else WRONG][i] = True
    return [
        ("without a segmentation", masks[ABSENT], lambda i: "no 'segmentation', expected polygons or RLE"),
        ("with a segmentation that is no mask", masks[WRONG], lambda i: problems[i]),
    ]


def _problem(text: bytes, image_size: np.ndarray) -> str | None:
    """What is wrong with the segmentation of one annotation, in words."""
    try:
        segmentation = _typed(text)
    except msgspec.ValidationError:
        given = _shortened(decode_segmentation(text))
        return f"segmentation {given}, expected polygons (lists of finite numbers) or RLE (size and counts)"
    if not segmentation:
        return ABSENT
    if isinstance(segmentation, _RunLengths):
        height, width = image_size.tolist()
        if segmentation.size != (height, width):
            return f"RLE of size {list(segmentation.size)}, expected the image's [height, width], [{height}, {width}]"
        return None if isinstance(segmentation.counts, str) else _wrong_counts(segmentation.counts, height, width)
    for polygon in segmentation:
        if len(polygon) < 6:
            return f"polygon {_shortened(polygon)}, expected at least 3 points x, y"
        if len(polygon) % 2:
            return f"polygon {_shortened(polygon)} of {len(polygon)} numbers, expected x and y of each point"
    return None


def _typed(text: bytes) -> list[list[float]] | _RunLengths | None:
    try:
        return _decode_typed(text).segmentation
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # NaN and infinity are no JSON
        return _decode_typed(null_for_nan(text)[0]).segmentation


def _wrong_counts(counts: list[int], height: int, width: int) -> str | None:
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        return (
            f"RLE of {sum(counts)} pixels in {len(counts)} runs, expected {height} x {width} = {height * width} pixels"
        )
    return None


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def read_masks(path: str, source: np.ndarray, names: Sequence[str]) -> list[Mask]:
    """The masks of some annotations, as `segmentation_causes` has found them good.

    Args:
        path: the annotation file.
        source: [G, 2], first and one past the last byte of each annotation.
        names: what each is called in messages.

    Raises:
        UserError: a compressed RLE is damaged, which only shows when it is decoded.
    """
    masks = []
    with open(path, "rb") as file:
        for (start, stop), name in zip(source.tolist(), names, strict=True):
            file.seek(start)
            masks.append(_mask(_typed(file.read(stop - start)), f"{path}: {name}"))
    return masks


def _mask(segmentation: Any, name: str) -> Mask:
    if not isinstance(segmentation, _RunLengths):
        return PolygonMask(tuple(np.array(polygon, np.float64).reshape(-1, 2) for polygon in segmentation))
    height, width = segmentation.size
    compressed = isinstance(segmentation.counts, str)
    runs = run_lengths(segmentation.counts) if isinstance(segmentation.counts, str) else segmentation.counts
    problem = _wrong_counts(runs, height, width)
    if problem:
        raise UserError(f"{name}: {problem}; correct {'the compressed ' if compressed else ''}'counts' in the file")
    values = np.arange(len(runs), dtype=np.uint8) % 2  # runs of 0 and of 1 in turn
    return BitmapMask.of(np.repeat(values, runs).reshape(width, height).T)


def run_lengths(compressed: str) -> list[int]:
    """The counts that COCO's compressed string stands for.

    Each is a number of 5-bit groups, the lowest first, with a sign; from the fourth on, it is the difference to the count
    two places before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in compressed.encode():
        group = character - 48
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
