"""Masks pasted into their images, as soon as they are there.

A mask of 28 x 28 probabilities takes 3 kB, so the hundred detections of each of 5,000 images would take 1.5 GB and travel
so between processes; pasted and run-length encoded it takes some hundred bytes, and that is what files and metrics need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from frcnn.data.roles import GroundTruth
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


def encode_masks_of_images(detections: Mapping[int, Detections], ground_truth: GroundTruth) -> dict[int, Detections]:
    """The same for many images; those that the data set does not have stay as they are.

    Args:
        detections: image id -> what was found in it.
        ground_truth: knows the sizes of the images.
    """
    sizes = dict(zip(ground_truth.image_ids.tolist(), ground_truth.image_sizes.tolist(), strict=True))
    return {
        image_id: with_encoded_masks(found, tuple(sizes[image_id])) if image_id in sizes else found
        for image_id, found in detections.items()
    }
