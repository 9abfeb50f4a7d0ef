"""Ground truth and detections in COCO's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frcnn.data.roles import GroundTruth
from frcnn.evaluation.columns import DetectionColumns

Task = Literal["bbox", "segm", "keypoints"]


@dataclass(frozen=True)
class CocoProblem:
    """What COCO's programs are asked, normalised: ids count from 1, every field is there.

    Args:
        task: what is compared: boxes and masks by their IoU, keypoints by their similarity (OKS).
        images: {"id", "height", "width"}.
        annotations: {"id", "image_id", "category_id", "bbox", "area", "iscrowd"} and, as the task needs it,
            "segmentation", or "keypoints" and "num_keypoints".
        categories: {"id", "name"}.
        rows: [D, 7] float64 detections: image id, x, y, w, h, score, category id.
        shapes: D run lengths {"size", "counts"} for segm, D lists of 3 J numbers for keypoints, None for bbox.
        limits: the most detections of an image (and class) that count, ascending.
        by_class: whether a detection must have the class of the object.
        oks_sigmas: J of them, for keypoints.
        federated: whether each image was searched for some classes only, as LVIS's were; images then have
            "neg_category_ids" and "not_exhaustive_category_ids", and categories a "frequency".
    """

    task: Task
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    rows: np.ndarray
    shapes: Sequence[Any] | None = None
    limits: tuple[int, ...] = (1, 10, 100)
    by_class: bool = True
    oks_sigmas: tuple[float, ...] = ()
    federated: bool = False


def image_numbers(ground_truth: GroundTruth) -> np.ndarray:
    """[n], the number of each image, from 1 on.

    Images are numbered in the order of their ids, because detections of equal scores are ranked in that order.
    """
    order = np.argsort(ground_truth.image_ids, kind="stable")  # [n]
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(1, len(order) + 1)
    return number


def box_problem(
    ground_truth: GroundTruth,
    columns: DetectionColumns,
    *,
    limits: tuple[int, ...] = (1, 10, 100),
    by_class: bool = True,
) -> CocoProblem:
    """Boxes against boxes. Ids are our own, from 1 on: pycocotools takes an annotation of id 0 for "not matched"."""
    number = image_numbers(ground_truth)
    boxes = ground_truth.boxes
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    objects = zip(
        number[ground_truth.image_index].tolist(),
        (ground_truth.classes + 1).tolist(),
        xywh,
        ground_truth.areas.tolist(),
        ground_truth.iscrowd.tolist(),
        strict=True,
    )
    detection_numbers = np.searchsorted(np.sort(ground_truth.image_ids), columns.image_ids) + 1
    return CocoProblem(
        task="bbox",
        images=[
            {"id": image_number, "height": h, "width": w}
            for image_number, (h, w) in zip(number.tolist(), ground_truth.image_sizes.tolist(), strict=True)
        ],
        annotations=[
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for i, (image, category, box, area, crowd) in enumerate(objects, start=1)
        ],
        categories=[{"id": k, "name": category.name} for k, category in enumerate(ground_truth.categories, start=1)],
        rows=np.column_stack([detection_numbers, columns.boxes_xywh(), columns.scores, columns.classes + 1]),
        limits=limits,
        by_class=by_class,
    )
