"""The two programs that compute COCO's precision and recall: hotcoco (Rust, fast) and pycocotools (the reference).

Both are asked for the same arrays: what follows is shared, and the numbers are equal to the last digit.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Literal

import numpy as np

from frcnn.errors import UserError
from frcnn.evaluation.curves import PrecisionRecall
from frcnn.evaluation.problem import CocoProblem

Backend = Literal["hotcoco", "pycocotools"]
SHAPE_KEY = {"segm": "segmentation", "keypoints": "keypoints"}


def check_backend(backend: str) -> None:
    if backend not in ("hotcoco", "pycocotools"):
        raise ValueError(f"backend must be hotcoco or pycocotools, got {backend!r}")


def evaluate_with(backend: Backend, problem: CocoProblem) -> tuple[PrecisionRecall, list[str]]:
    """The curves, and a note where pycocotools had to take hotcoco's place."""
    if backend == "hotcoco":
        try:
            return evaluate_with_hotcoco(problem), []
        except ImportError as error:
            notes = [f"hotcoco cannot be imported ({error}): pycocotools took its place; same numbers, slower"]
            return evaluate_with_pycocotools(problem), notes
    return evaluate_with_pycocotools(problem), []


def evaluate_with_hotcoco(problem: CocoProblem) -> PrecisionRecall:
    """Raises ImportError where hotcoco is not installed or has no build for this machine."""
    import hotcoco

    ground_truth = hotcoco.COCO(
        {"images": problem.images, "annotations": problem.annotations, "categories": problem.categories}
    )
    found = problem.rows if problem.shapes is None else results_of(problem)
    evaluation = hotcoco.COCOeval(
        ground_truth, ground_truth.load_res(found), problem.task, lvis_style=problem.federated
    )
    parameters = evaluation.params
    parameters.max_dets = list(problem.limits)
    parameters.use_cats = problem.by_class
    if problem.task == "keypoints":
        parameters.kpt_oks_sigmas = list(problem.oks_sigmas)
    evaluation.params = parameters
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
        evaluation = COCOeval(ground_truth, indexed(_result_annotations(problem)), problem.task)
        evaluation.params.maxDets = list(problem.limits)
        evaluation.params.useCats = int(problem.by_class)
        if problem.task == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(problem.oks_sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    return PrecisionRecall(evaluation.eval["precision"], evaluation.eval["recall"])


def results_of(problem: CocoProblem) -> list[dict[str, Any]]:
    """The detections as COCO results. With a mask or keypoints there is no box, or its area would be taken for theirs."""
    assert problem.shapes is not None
    key = SHAPE_KEY[problem.task]
    return [
        {"image_id": int(image_id), "category_id": int(category_id), "score": score, key: shape}
        for (image_id, *_, score, category_id), shape in zip(problem.rows.tolist(), problem.shapes, strict=True)
    ]


def _result_annotations(problem: CocoProblem) -> list[dict[str, Any]]:
    annotations = [
        {
            "id": number,
            "image_id": int(image_id),
            "category_id": int(category_id),
            "bbox": [x, y, w, h],
            "score": score,
            "area": w * h,
            "iscrowd": 0,
        }
        for number, (image_id, x, y, w, h, score, category_id) in enumerate(problem.rows.tolist(), start=1)
    ]
    if problem.shapes is not None:
        for annotation, shape in zip(annotations, problem.shapes, strict=True):
            annotation[SHAPE_KEY[problem.task]] = shape
            annotation["area"] = _area(shape)
    return annotations


def _area(shape: Any) -> float:
    """Of a mask its pixels, of keypoints the box around them: what pycocotools' loadRes sets."""
    from pycocotools import mask

    if isinstance(shape, dict):
        return float(mask.area(shape))
    x, y = shape[0::3], shape[1::3]
    return (max(x) - min(x)) * (max(y) - min(y))
