"""Results as files: detections as COCO's result JSON, metrics as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from frcnn.data.roles import Category
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.keypoints import pixel_indices
from frcnn.structures import Detections


def coco_results(detections: Mapping[int, Detections], categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Detections in the form that COCO's tools and servers read.

    Detections that hold NaN or infinite numbers, which JSON cannot write, are left out, as in the evaluation. Keypoints
    are written as files have them, by the pixel they lie in: the centre of the first pixel is 0.

    Args:
        detections: image id -> what was found in it, masks as run lengths.
        categories: class k is `categories[k]`, whose id is written.

    Returns:
        [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...], nothing rounded; with masks also
        "segmentation": {"size": [h, w], "counts"}, with keypoints "keypoints": [x, y, score, ...].
    """
    columns = DetectionColumns.of(detections)
    columns = columns.where(columns.is_finite())
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": categories[k].id, "bbox": bbox, "score": score}
        for image_id, k, bbox, score in zip(
            columns.image_ids.tolist(),
            columns.classes.tolist(),
            columns.boxes_in_files().tolist(),
            columns.scores.tolist(),
            strict=True,
        )
    ]
    if columns.masks is not None:
        for result, mask in zip(results, columns.masks, strict=True):
            result["segmentation"] = as_json(mask)
    if columns.keypoints is not None:
        for result, keypoints in zip(results, pixel_indices(columns.keypoints).tolist(), strict=True):
            result["keypoints"] = keypoints
    return results


def as_json(mask: dict[str, Any]) -> dict[str, Any]:
    """Run lengths with their counts as text, which JSON can hold."""
    return {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}


def save_coco_results(
    path: str | os.PathLike[str], detections: Mapping[int, Detections], categories: Sequence[Category]
) -> None:
    """Writes `coco_results` as JSON; the file is there whole or not at all."""
    _write(Path(path), msgspec.json.encode(coco_results(detections, categories)))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f".{path.name}.{os.getpid()}.incomplete")
    try:
        incomplete.write_bytes(content)
        incomplete.replace(path)
    finally:
        incomplete.unlink(missing_ok=True)
