"""The text of a COCO file: mapped, cut into its items, and these decoded one by one, so that a mistake has an address."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from frcnn.errors import UserError

Buffer = mmap.mmap | bytes
T = TypeVar("T")


class Document(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw] = []


class _Identified(msgspec.Struct):
    id: int | str | None = None


def map_file(path: str) -> mmap.mmap:
    """The file as bytes that are read when they are looked at.

    Raises:
        UserError: it is missing, unreadable or empty.
    """
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise UserError(f"{path}: the file is empty (0 bytes), expected COCO JSON; make or download it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def decode_document(buffer: Buffer, path: str) -> tuple[Document, Buffer, np.ndarray]:
    """The document, the text it was decoded from, and where that differs from the file (see `null_for_nan`)."""
    shifts = np.empty((0, 2), np.int64)
    try:
        try:
            return msgspec.json.decode(buffer, type=Document), buffer, shifts
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            buffer, shifts = null_for_nan(buffer)
            return msgspec.json.decode(buffer, type=Document), buffer, shifts
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path}: {error}; expected COCO JSON: an object with the lists 'images', 'annotations' and 'categories'"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not valid JSON: {error}; the file may be cut short: make or download it again"
        ) from error


def null_for_nan(buffer: Buffer) -> tuple[bytes, np.ndarray]:
    """The text with null for NaN and infinity, which are no JSON but which Python writes; and where it grew or shrank.

    Returns:
        the text, and [k, 2]: the end of each null in it, and how many bytes longer it is up to there than the original.
    """
    tokens = list(re.finditer(rb"(?<=[\s,:\[])-?(?:NaN|Infinity)(?=[\s,\]}])", buffer))
    text, growth, shifts, last = [], 0, [], 0
    for token in tokens:
        text += [buffer[last : token.start()], b"null"]
        last = token.end()
        growth += len(b"null") - (token.end() - token.start())
        shifts.append((token.end() + growth, growth))
    return b"".join([*text, buffer[last:]]), np.array(shifts, np.int64).reshape(-1, 2)


def decode_each(items: Sequence[msgspec.Raw], kind: type[T], path: str, where: str, first: int = 0) -> list[T]:
    """Items as `kind`; a mistake is named by the list it is in (`where`) and its index, the first item's being `first`.

    Raises:
        UserError: an item is not of that kind.
    """
    decode = msgspec.json.Decoder(kind).decode
    index = 0
    rows = []
    try:
        for index, item in enumerate(items):  # noqa: B007
            rows.append(decode(item))
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {where}[{first + index}]{_id_of(items[index])}: {_explain(error)}") from error
    return rows


def _id_of(item: msgspec.Raw) -> str:
    try:
        found = msgspec.json.decode(item, type=_Identified).id
    except msgspec.ValidationError:
        return ""
    return "" if found is None else f" (id {found})"


def _explain(error: msgspec.ValidationError) -> str:
    message = str(error).replace(" | null", "")
    expected = "; bbox is [x, y, width, height], four numbers" if "bbox" in message else ""
    return f"{message}{expected}; correct the value in the file"


def source_of(items: Sequence[msgspec.Raw], buffer: Buffer, shifts: np.ndarray) -> np.ndarray:
    """[m, 2]: where each annotation's bytes lie in the file."""

    def address(view: Any) -> int:
        return np.frombuffer(view, np.uint8).__array_interface__["data"][0]

    start = np.array([address(item) for item in items], np.int64) - address(buffer)
    length = np.array([memoryview(item).nbytes for item in items], np.int64)
    source = np.stack([start, start + length], axis=1)  # [m, 2]
    if len(shifts):
        growth = np.concatenate([[0], shifts[:, 1]])
        source -= growth[np.searchsorted(shifts[:, 0], source, side="right")]
    return source
