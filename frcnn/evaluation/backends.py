"""The two programs that compute COCO's precision and recall: hotcoco (Rust, fast) and pycocotools (the reference).

Both are asked for the same arrays: what follows is shared, and the numbers are equal to the last digit.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from frcnn.errors import UserError


@dataclass(frozen=True)
class CocoProblem:
    """Ground truth and detections in COCO's terms, normalised: ids count from 1, every field is there.

    Args:
        images: {"id", "height", "width"}.
        annotations: {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}.
        categories: {"id", "name"}.
        rows: [D, 7] float64 detections: image id, x, y, w, h, score, category id.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    rows: np.ndarray


@dataclass(frozen=True)
class PrecisionRecall:
    """COCO's accumulated curves; -1 where there is no object to find.

    Args:
        precision: [T, R, K, A, M]: IoU threshold, recall, class, area range, most detections an image.
        recall: [T, K, A, M].
    """

    precision: np.ndarray
    recall: np.ndarray


def evaluate_with_hotcoco(problem: CocoProblem) -> PrecisionRecall:
    """Raises ImportError where hotcoco is not installed or has no build for this machine."""
    import hotcoco

    ground_truth = hotcoco.COCO(
        {"images": problem.images, "annotations": problem.annotations, "categories": problem.categories}
    )
    evaluation = hotcoco.COCOeval(ground_truth, ground_truth.load_res(problem.rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    accumulated = evaluation.eval
    assert accumulated is not None
    return PrecisionRecall(np.asarray(accumulated["precision"]), np.asarray(accumulated["recall"]))


def evaluate_with_pycocotools(problem: CocoProblem) -> PrecisionRecall:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError(f"pycocotools cannot be imported ({error}); pip install pycocotools") from error

    def indexed(annotations: list[dict[str, Any]]) -> Any:
        # pycocotools' own loadRes fails on an empty list, and wants a file or a copy of everything
        coco = COCO()
        coco.dataset = {"images": problem.images, "annotations": annotations, "categories": problem.categories}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        # pycocotools writes its working fields into the annotations it is given
        ground_truth = indexed([dict(annotation) for annotation in problem.annotations])
        evaluation = COCOeval(ground_truth, indexed(_result_annotations(problem.rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return PrecisionRecall(evaluation.eval["precision"], evaluation.eval["recall"])


def _result_annotations(rows: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "image_id": int(image_id),
            "category_id": int(category_id),
            "bbox": [x, y, w, h],
            "score": score,
            "area": w * h,
            "iscrowd": 0,
        }
        for number, (image_id, x, y, w, h, score, category_id) in enumerate(rows.tolist(), start=1)
    ]
