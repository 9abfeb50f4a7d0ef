"""Images whose objects are rotated boxes: a reader of COCO files with five-number boxes, and transforms that turn along."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import torch

from frcnn.config import import_file
from frcnn.data.coco import find_under_root
from frcnn.data.images import check_size, opencv, read_image
from frcnn.data.roles import DATASETS, TRANSFORMS, Category, Dataset, GroundTruth, Sample
from frcnn.data.transforms import RandomHorizontalFlip, ResizeShortestEdge
from frcnn.errors import UserError

ops = import_file(Path(__file__).with_name("rotated_boxes.py"))
Others = Callable[[int], list[Sample]]
FORM = "five numbers, [cx, cy, w, h, angle]: centre and sides in pixels, degrees counter-clockwise"


class _Image(msgspec.Struct):
    id: int
    height: int
    width: int
    file_name: str


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: list[float]
    id: int | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    segmentation: list[list[float]] | dict[str, Any] | None = None


class _Document(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] = []


class _Loaded(NamedTuple):
    ground_truth: GroundTruth
    file_names: list[str]
    folder: str


@DATASETS.register
class RotatedCocoDataset(Dataset):
    """Images and rotated boxes of a COCO JSON file whose `bbox` is [cx, cy, w, h, angle], read at first use.

    Args:
        annotations: path of the JSON file; a relative one is looked up under FRCNN_DATASETS (default: datasets).
        images: folder that the file names in the JSON file are relative to; looked up likewise.
        straight_boxes: what becomes of a `bbox` of four numbers: error stops there; fit takes the smallest rectangle
            around the polygons of the object's `segmentation` instead, with its longer side as `w`.
    """

    provides = frozenset({ops.ROTATED_BOXES})

    def __init__(self, *, annotations: str, images: str, straight_boxes: Literal["error", "fit"] = "error") -> None:
        self.annotations = annotations
        self.images = images
        self.straight_boxes = straight_boxes
        self._loaded: _Loaded | None = None

    def load(self) -> _Loaded:
        """Reads and checks the annotations, once.

        Raises:
            UserError: a path does not exist, or an annotation cannot be used.
        """
        if self._loaded is None:
            path = find_under_root(self.annotations, "annotation file")
            folder = find_under_root(self.images, "image folder")
            document = _decode(path)
            ground_truth = _ground_truth(document, path, fit=self.straight_boxes == "fit")
            self._loaded = _Loaded(ground_truth, [image.file_name for image in document.images], folder)
        return self._loaded

    @property
    def categories(self) -> tuple[Category, ...]:  # type: ignore[override]
        return tuple(self.load().ground_truth.categories)

    @property
    def image_sizes(self) -> np.ndarray:
        return self.load().ground_truth.image_sizes

    def __len__(self) -> int:
        return len(self.load().file_names)

    def __getitem__(self, index: int) -> Sample:
        ground_truth, file_names, folder = self.load()
        image_id = int(ground_truth.image_ids[index])
        height, width = ground_truth.image_sizes[index].tolist()
        path = os.path.join(folder, file_names[index])
        image = read_image(path, f"image id {image_id}")  # [h, w, 3]
        check_size(image, (height, width), f"{path} (image id {image_id})")
        chosen = (ground_truth.image_index == index) & ~ground_truth.iscrowd
        boxes = ground_truth.boxes[chosen].astype(np.float32)  # [G, 5]
        return Sample(image, boxes, ground_truth.classes[chosen], image_id, (height, width))

    def ground_truth(self) -> GroundTruth:
        return self.load().ground_truth


def _decode(path: str) -> _Document:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=_Document)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}; a bbox is {FORM}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON: {error}; the file may be cut short: make or copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _ground_truth(document: _Document, path: str, *, fit: bool) -> GroundTruth:
    categories = sorted(document.categories, key=lambda category: category.id)
    place_of_image = {image.id: place for place, image in enumerate(document.images)}
    class_of = {category.id: k for k, category in enumerate(categories)}
    boxes = []
    for i, annotation in enumerate(document.annotations):
        name = f"{path}: annotations[{i}]" + ("" if annotation.id is None else f" (id {annotation.id})")
        if annotation.image_id not in place_of_image:
            raise UserError(
                f"{name}: there is no image with the id {annotation.image_id}; add it or drop the annotation"
            )
        if annotation.category_id not in class_of:
            raise UserError(
                f"{name}: there is no category with the id {annotation.category_id}; choices: "
                f"{', '.join(str(category.id) for category in categories)}"
            )
        boxes.append(_box(annotation, name, fit))
    image_index = np.array([place_of_image[a.image_id] for a in document.annotations], np.int64)
    order = np.argsort(image_index, kind="stable")
    table = np.array(boxes, np.float64).reshape(-1, 5)[order]
    given = [np.nan if a.area is None or len(a.bbox) == 4 else a.area for a in document.annotations]
    areas = np.array(given, np.float64)[order]
    table[:, 4] = ops.wrap_angle(table[:, 4])
    return GroundTruth(
        categories=tuple(Category(category.id, category.name) for category in categories),
        image_ids=np.array([image.id for image in document.images], np.int64),
        image_sizes=np.array([(image.height, image.width) for image in document.images], np.int64).reshape(-1, 2),
        image_index=image_index[order],
        classes=np.array([class_of[a.category_id] for a in document.annotations], np.int64)[order],
        boxes=table,
        areas=np.where(np.isnan(areas), table[:, 2] * table[:, 3], areas),
        iscrowd=np.array([bool(a.iscrowd) for a in document.annotations], bool)[order],
    )


def _box(annotation: _Annotation, name: str, fit: bool) -> list[float]:
    """cx cy w h angle of one annotation, checked."""
    box = annotation.bbox
    if len(box) == 4 and fit:
        polygons = annotation.segmentation
        if not isinstance(polygons, list) or not any(len(polygon) >= 6 for polygon in polygons):
            raise UserError(f"{name}: straight_boxes: fit needs polygons, and 'segmentation' has none; add them")
        box = smallest_rectangle(np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons]))
    if len(box) != 5:
        hint = "; straight_boxes: fit makes them of polygons" if len(box) == 4 else ""
        raise UserError(f"{name}: bbox has {len(box)} numbers; expected {FORM}{hint}")
    if not np.isfinite(box).all() or not (box[2] > 0 and box[3] > 0):
        raise UserError(f"{name}: bbox is {box}; expected finite numbers, and sides w and h above 0")
    return box


def smallest_rectangle(points: np.ndarray) -> list[float]:
    """cx cy w h angle of the rectangle of least area around points [n, 2]; `w` is its longer side, the angle in [-90, 90)."""
    cv2 = opencv()
    corners = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))).astype(np.float64)  # [4, 2]
    sides = corners[1:3] - corners[0:2]  # [2, 2]
    lengths = np.linalg.norm(sides, axis=1)
    longer = int(lengths.argmax())
    angle = np.degrees(np.arctan2(-sides[longer, 1], sides[longer, 0]))
    center = corners.mean(axis=0)
    return [*center.tolist(), float(lengths[longer]), float(lengths[1 - longer]), float(ops.wrap_angle(angle, 180.0))]


@TRANSFORMS.register
class RotatedHorizontalFlip(RandomHorizontalFlip):
    """Mirrors left and right, rotated boxes too.

    Args:
        probability: share of the images that are mirrored.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        if rng.random() >= self.probability:
            return sample
        return flip_rotated(sample)


@TRANSFORMS.register
class RotatedResize(ResizeShortestEdge):
    """Scales the image so that its shorter side gets one of the given lengths; rotated boxes are scaled along.

    Args:
        sizes: lengths of the shorter side, in pixels.
        max_size: longest that the longer side may become, in pixels; the image is then scaled less.
        sampling: choice takes one of `sizes`; range takes any whole number between the two given.
        rounding: of the other side; half_up as detectron2 has it, floor as torchvision does.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        height, width = sample.image.shape[:2]
        image_alone = replace(sample, boxes=np.zeros((0, 4), np.float32), classes=sample.classes[:0])
        image = super().__call__(image_alone, rng, others).image
        boxes = torch.from_numpy(
            sample.boxes.reshape(-1, 5)
        )  # an image to predict on comes with no box of four numbers
        scaled = ops.scale_rotated(boxes, image.shape[1] / width, image.shape[0] / height)
        return replace(sample, image=image, boxes=scaled.numpy())


def flip_rotated(sample: Sample) -> Sample:
    """The sample in a mirror: left is right, and what was turned one way is turned the other."""
    boxes = sample.boxes.reshape(-1, 5).copy()
    boxes[:, 0] = sample.image.shape[1] - boxes[:, 0]
    boxes[:, 4] = ops.wrap_angle(-boxes[:, 4])
    return replace(sample, image=opencv().flip(sample.image, 1), boxes=boxes)
