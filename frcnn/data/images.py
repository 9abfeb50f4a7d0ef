"""Image files to arrays: any usual format to RGB, and a clear word on the ones that cannot be read."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from frcnn.errors import UserError

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@functools.cache
def opencv() -> Any:
    """OpenCV's module, imported when the first image is touched.

    Raises:
        UserError: it cannot be imported; says which system package or which wheel is missing.
    """
    try:
        import cv2
    except Exception as error:  # not ImportError alone: two OpenCV wheels over each other give an AttributeError
        if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
            raise UserError(
                "images are read with OpenCV, which is not installed: pip install opencv-python-headless"
            ) from error
        raise UserError(
            f"OpenCV (cv2) cannot be imported: {error}. Install the system package it misses (on Debian and Ubuntu: "
            "apt-get install libgl1 libglib2.0-0), or the wheel that needs none: pip uninstall opencv-python; "
            "pip install opencv-python-headless"
        ) from error
    return cv2


def read_image(path: str, name: str = "") -> np.ndarray:
    """Reads and decodes one image file.

    EXIF orientation is applied. Grey and palette images become RGB, 16 bits are scaled to 8, and alpha is dropped.

    Args:
        path: the file.
        name: what the image is called in messages besides its path, such as "image id 7".

    Returns:
        [h, w, 3] uint8 RGB, contiguous.

    Raises:
        UserError: the file is missing, empty, cut short, or no image.
    """
    what = f"{path} ({name})" if name else path
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise UserError(
            f"{what}: there is no such image file; put it there or correct 'file_name' in the annotations"
        ) from error
    except OSError as error:
        raise UserError(f"{what}: the image file cannot be read: {error.strerror}") from error
    return decode_image(data, what)


def decode_image(data: bytes, what: str = "image") -> np.ndarray:
    """Decodes the bytes of an image file (see `read_image`).

    Args:
        data: the file's bytes.
        what: the image's name in messages.

    Returns:
        [h, w, 3] uint8 RGB, contiguous.

    Raises:
        UserError: the bytes are no whole image.
    """
    if not data:
        raise UserError(f"{what}: the image file is empty (0 bytes); copy or download it again")
    # OpenCV fills what is missing of a JPEG with grey and warns on stderr only: the end is looked for here.
    if _is_cut_short(data):
        raise UserError(
            f"{what}: the image file is cut short after {len(data):,} bytes (its end is missing); copy it again"
        )
    cv2 = opencv()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(
            f"{what}: cannot be decoded as an image ({len(data):,} bytes that begin with {data[:8]!r}); expected a "
            "whole JPEG, PNG, BMP, TIFF or WebP file"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def check_size(image: np.ndarray, expected: tuple[int, int], what: str) -> None:
    """Compares an image with the size that its annotations give.

    Args:
        image: [h, w, 3].
        expected: (h, w).
        what: the image's name in messages.

    Raises:
        UserError: with both sizes; boxes made for another size would be wrong.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(expected):
        return
    cause = "the boxes were drawn on an image of another size: correct width, height and boxes, or the file"
    if (width, height) == tuple(expected):
        cause = (
            "width and height are swapped, most likely by the EXIF rotation, which is applied here: make the "
            "annotations for the image as it is shown, or remove the EXIF tag"
        )
    raise UserError(
        f"{what}: the file is {width} x {height} but the annotations say {expected[1]} x {expected[0]}; {cause}"
    )


def _is_cut_short(data: bytes) -> bool:
    if data.startswith(JPEG_START):
        return data.rfind(JPEG_END) < _first_scan(data)
    if data.startswith(PNG_START):
        return PNG_END not in data[-64:] and PNG_END not in data
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


def _first_scan(data: bytes) -> int:
    """Where the pixels of a JPEG begin. An EXIF thumbnail before them has an end marker of its own."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == JPEG_SCAN:
            return place
        if data[place + 1] == 0xFF:
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place
