"""Masks and keypoints on a picture, in the colours of their objects. Pictures are RGB; these functions draw onto them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frcnn.data.images import opencv
from frcnn.inspect.boxes import DARK, LIGHT, Color, line_width

OPACITY = 0.4
"""How much a mask covers what is below it: enough to see its colour, and the object through it."""

KEYPOINT_THRESH = 0.05
"""Keypoints of a lower score, and those that are not labelled (visibility 0), are not drawn."""


def draw_mask(canvas: np.ndarray, mask: np.ndarray, color: Color) -> None:
    """Tints the mask and outlines it.

    Args:
        canvas: [h, w, 3] uint8.
        mask: [h, w] bool or uint8, of this size or, if the picture was resized, of the image's.
        color: RGB.
    """
    cv2 = opencv()
    height, width = canvas.shape[:2]
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    if mask.shape != (height, width):
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    if not mask.any():
        return
    inside = mask.astype(bool)
    canvas[inside] = (canvas[inside] * (1 - OPACITY) + np.array(color) * OPACITY).round().astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, color, max(1, line_width(canvas) // 2))


def draw_keypoints(
    canvas: np.ndarray, keypoints: np.ndarray, skeleton: Sequence[tuple[int, int]], color: Color
) -> None:
    """Points, and the bones between those of them that are seen.

    Args:
        canvas: [h, w, 3] uint8.
        keypoints: [J, 3] x, y in pixels of the canvas, and score or visibility.
        skeleton: pairs of indices 0..J-1.
        color: RGB.
    """
    cv2 = opencv()
    line = line_width(canvas)
    seen = np.isfinite(keypoints).all(axis=1) & (keypoints[:, 2] > KEYPOINT_THRESH)  # [J]
    # far outside of the picture a coordinate would not fit into OpenCV's integers
    limit = 2 * max(canvas.shape[:2])
    places = {
        j: tuple(keypoints[j, :2].clip(-limit, limit).round().astype(int).tolist())
        for j in np.flatnonzero(seen).tolist()
    }
    for thickness, ink in ((line + 2, DARK), (line, color)):
        for start, end in skeleton:
            if start in places and end in places:
                cv2.line(canvas, places[start], places[end], ink, thickness, cv2.LINE_AA)
    for place in places.values():
        cv2.circle(canvas, place, line + 2, DARK, -1, cv2.LINE_AA)
        cv2.circle(canvas, place, line + 1, LIGHT, -1, cv2.LINE_AA)
        cv2.circle(canvas, place, line, color, -1, cv2.LINE_AA)
