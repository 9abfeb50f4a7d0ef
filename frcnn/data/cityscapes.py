"""Cityscapes' maps of instances as one COCO JSON file with boxes and masks (https://arxiv.org/abs/1604.01685)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from frcnn.data.images import opencv
from frcnn.data.known_categories import KNOWN_CATEGORIES
from frcnn.errors import UserError

_IDS = "_gtFine_instanceIds.png"
_INSTANCES_FROM = (
    1000  # label x 1000 + number is one object; a label alone is a group of objects that nobody told apart
)


def cityscapes_to_coco(folder: Path, split: str) -> dict[str, Any]:
    """The fine annotations of one split: 8 classes that have instances, groups as crowds.

    Args:
        folder: holds gtFine/ and leftImg8bit/.
        split: train, val or test.

    Returns:
        the content of a COCO JSON file; file names are relative to leftImg8bit/SPLIT.

    Raises:
        UserError: there is no such folder, or a map cannot be read.
    """
    maps = sorted((folder / "gtFine" / split).glob(f"*/*{_IDS}"))
    if not maps:
        raise UserError(f"{folder / 'gtFine' / split}: holds no city with files *{_IDS}; expected Cityscapes' gtFine")
    categories = KNOWN_CATEGORIES["cityscapes"]
    labels = {category.id for category in categories}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, path in enumerate(maps, start=1):
        instances = opencv().imread(str(path), opencv().IMREAD_UNCHANGED)  # [h, w] uint16
        if instances is None or instances.ndim != 2:
            raise UserError(f"{path}: cannot be read as a map of instances; expected a PNG with one channel of 16 bits")
        name = f"{path.parent.name}/{path.name.replace(_IDS, '_leftImg8bit.png')}"
        height, width = instances.shape
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for annotation in _annotations(instances, labels):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    listed_categories = [{"id": category.id, "name": category.name} for category in categories]
    return {"images": images, "annotations": annotations, "categories": listed_categories}


def _annotations(instances: np.ndarray, labels: set[int]) -> Iterator[dict[str, Any]]:
    from pycocotools import mask

    for value in np.unique(instances).tolist():
        is_group = value < _INSTANCES_FROM
        label = value if is_group else value // _INSTANCES_FROM
        if label not in labels:
            continue
        run_lengths = mask.encode(np.asfortranarray(instances == value, dtype=np.uint8))
        yield {
            "category_id": label,
            "bbox": mask.toBbox(run_lengths).tolist(),
            "area": int(mask.area(run_lengths)),
            "iscrowd": int(is_group),
            "segmentation": {"size": run_lengths["size"], "counts": run_lengths["counts"].decode("ascii")},
        }
