"""Masks pasted into their images, as soon as they are there.

A mask of 28 x 28 probabilities takes 3 kB, so the hundred detections of each of 5,000 images would take 1.5 GB and travel
so between processes; pasted and run-length encoded it takes some hundred bytes, and that is what files and metrics need.
"""

from __future__ import annotations

from dataclasses import replace

from frcnn.ops.masks import encode_masks
from frcnn.structures import Detections


def with_encoded_masks(found: Detections, size: tuple[int, int]) -> Detections:
    """Detections whose masks, if they have any, are run lengths of the image's size.

    Args:
        found: in the pixels of the original image.
        size: (h, w) of the original image.
    """
    if found.masks is None:
        return found
    return replace(found, masks=None, encoded_masks=encode_masks(found.masks.detach(), found.boxes.detach(), size))
