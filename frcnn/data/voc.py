"""Pascal VOC's XML files as one COCO JSON file (Everingham et al., The Pascal Visual Object Classes Challenge)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frcnn.data.known_categories import KNOWN_CATEGORIES
from frcnn.errors import UserError

VOC_NAME = re.compile(r"([12][0-9]{3}_)?[0-9]{6}")
"""As the images of VOC 2007, and of the later years, are called."""


def voc_to_coco(folder: Path, split: str) -> dict[str, Any]:
    """The annotations of one split.

    VOC names the first and the last pixel of a box and counts from 1: its left and upper sides move by one pixel.

    Args:
        folder: such as `VOCdevkit/VOC2007`, with Annotations/, ImageSets/Main/ and JPEGImages/.
        split: train, val, trainval or test.

    Returns:
        the content of a COCO JSON file; objects that VOC calls difficult have `difficult: 1`.

    Raises:
        UserError: a file is missing or is not VOC's.
    """
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.is_file():
        raise UserError(f"{listed}: there is no such list of images; expected a folder such as VOCdevkit/VOC2007")
    categories = KNOWN_CATEGORIES["voc"]
    ids = {category.name: category.id for category in categories}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names = listed.read_text(encoding="utf-8").split()
    if not names:
        raise UserError(f"{listed}: names no image")
    for image_id, name in zip(_image_ids(names), names, strict=True):
        path = folder / "Annotations" / f"{name}.xml"
        try:
            root = ElementTree.parse(path).getroot()
            width, height = (int(_text(root, f"size/{side}")) for side in ("width", "height"))
            objects = [_annotation(node, ids) for node in root.findall("object")]
        except (OSError, ElementTree.ParseError, ValueError, KeyError) as error:
            raise UserError(f"{path}: cannot be read as an annotation of Pascal VOC: {error}") from error
        images.append({"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height})
        for annotation in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    listed_categories = [{"id": category.id, "name": category.name} for category in categories]
    return {"images": images, "annotations": annotations, "categories": listed_categories}


def _image_ids(names: list[str]) -> Sequence[int]:
    """The names as numbers, 2008_000002 as 2008000002, so that no two years share an id; of other names, 1, 2, ..."""
    if all(VOC_NAME.fullmatch(name) for name in names) and len(set(names)) == len(names):
        return [int(name.replace("_", "")) for name in names]
    return range(1, len(names) + 1)


def _annotation(node: ElementTree.Element, ids: dict[str, int]) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(_text(node, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    width, height = x2 - (x1 - 1), y2 - (y1 - 1)
    return {
        "category_id": ids[_text(node, "name")],
        "bbox": [x1 - 1, y1 - 1, width, height],
        "area": width * height,
        "iscrowd": 0,
        "difficult": int(node.findtext("difficult") or 0),
    }


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"there is no {path} in <{node.tag}>")
    return text.strip()
