"""Boxes and text on a picture: class-coloured, labelled, readable on any background. Pictures are RGB."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frcnn.data.images import opencv

Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = (
    (255, 99, 71),
    (64, 196, 255),
    (255, 214, 10),
    (105, 240, 120),
    (236, 120, 255),
    (255, 159, 28),
    (0, 229, 200),
    (150, 150, 255),
    (255, 140, 170),
    (200, 230, 60),
)
"""The first classes' colours: bright, and told apart by people who do not see red or green as most do."""

DARK: Color = (24, 26, 30)
LIGHT: Color = (245, 245, 245)
CHIP_PADDING = 3


def class_color(class_index: int) -> Color:
    """The colour of a class, the same in every picture."""
    if class_index < len(COLORS):
        return COLORS[class_index]
    # steps of the golden ratio around the colour wheel never come back to where they were
    hue = class_index * 0.618034 % 1.0
    r, g, b = colorsys.hsv_to_rgb(hue, 0.6 if class_index % 2 else 0.85, 1.0)
    return round(r * 255), round(g * 255), round(b * 255)


def line_width(image: np.ndarray) -> int:
    """Of boxes and bones in pixels: thin on small pictures, visible on large ones."""
    return int(np.clip(round(max(image.shape[:2]) / 320), 2, 6))


def text_scale(image: np.ndarray) -> float:
    """OpenCV's font scale for labels on this image: small, but never too small to read."""
    return float(np.clip(max(image.shape[:2]) / 1600, 0.4, 1.2))


def draw_text(image: np.ndarray, text: str, corner: tuple[int, int], scale: float, color: Color) -> None:
    """Writes onto the image itself.

    Args:
        image: [h, w, 3].
        text: characters that the font does not have become question marks.
        corner: (x, y) of the text's upper left corner.
        scale: OpenCV's font scale.
        color: RGB.
    """
    cv2 = opencv()
    height = text_size(text, scale)[1]
    weight = 1 if scale < 0.7 else 2
    origin = (corner[0], corner[1] + height)
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, color, weight, cv2.LINE_AA)


def text_size(text: str, scale: float) -> tuple[int, int]:
    """(width, height) in pixels, of the capitals' height."""
    cv2 = opencv()
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1 if scale < 0.7 else 2)
    return width, height


def draw_boxes(image: np.ndarray, boxes: np.ndarray, classes: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """A copy of the image with labelled boxes, the first on top.

    Args:
        image: [h, w, 3] uint8 RGB.
        boxes: [n, 4] x1 y1 x2 y2 in pixels of the image; boxes that are not finite are left out.
        classes: [n], which choose the colours.
        labels: n texts.

    Returns:
        [h, w, 3] uint8 RGB.
    """
    cv2 = opencv()
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    line = line_width(canvas)
    drawn = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    edges = [width - 1, height - 1, width - 1, height - 1]
    corners = {i: boxes[i].clip(0, edges).round().astype(int).tolist() for i in drawn.tolist()}
    colors = {i: class_color(int(classes[i])) for i in corners}
    # dark outlines first, or they would cut through the boxes that they touch
    for thickness, ink in ((line + 2, DARK), (line, None)):
        for i, (x1, y1, x2, y2) in reversed(corners.items()):
            cv2.rectangle(canvas, (x1, y1), (x2, y2), ink or colors[i], thickness, cv2.LINE_AA)
    chips: list[Chip] = []
    for i, box in corners.items():
        chips.append(_place_chip(canvas, labels[i], box, colors[i], chips))
    for chip in reversed(chips):
        _draw_chip(canvas, chip)
    return canvas


@dataclass(frozen=True)
class Chip:
    """A filled label: its text and colour, and where it is."""

    text: str
    color: Color
    x1: int
    y1: int
    x2: int
    y2: int

    def overlaps(self, x: int, y: int, width: int, height: int) -> bool:
        return self.x1 < x + width and x < self.x2 and self.y1 < y + height and y < self.y2


def _place_chip(canvas: np.ndarray, text: str, box: Sequence[int], color: Color, taken: Sequence[Chip]) -> Chip:
    """Inside the image, at the first place that hides no other label: above the box, in its top, below it, ..."""
    text_width, text_height = text_size(text, text_scale(canvas))
    width, height = text_width + 2 * CHIP_PADDING, text_height + 2 * CHIP_PADDING
    x1, y1, x2, y2 = box
    right, bottom = max(canvas.shape[1] - width, 0), max(canvas.shape[0] - height, 0)
    places = [
        (int(np.clip(x, 0, right)), int(np.clip(y, 0, bottom)))
        for y in (y1 - height, y1, y2, y2 - height)
        for x in (x1, x2 - width)
    ]
    free = [place for place in places if not any(chip.overlaps(*place, width, height) for chip in taken)]
    x, y = (free or places)[0]
    return Chip(text, color, x, y, x + width, y + height)


def _draw_chip(canvas: np.ndarray, chip: Chip) -> None:
    cv2 = opencv()
    corners = (chip.x1, chip.y1), (chip.x2 - 1, chip.y2 - 1)
    cv2.rectangle(canvas, *corners, chip.color, -1)
    cv2.rectangle(canvas, *corners, DARK, 1)
    red, green, blue = chip.color
    ink = DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else LIGHT
    draw_text(canvas, chip.text, (chip.x1 + CHIP_PADDING, chip.y1 + CHIP_PADDING), text_scale(canvas), ink)
