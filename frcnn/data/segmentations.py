"""The segmentation of annotations, which stays in the file as bytes until it is asked for."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from frcnn.data.coco_json import map_file, null_for_nan


class _Segmented(msgspec.Struct):
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


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
    return any(decode_segmentation(text[start:stop]) for start, stop in source.tolist())
