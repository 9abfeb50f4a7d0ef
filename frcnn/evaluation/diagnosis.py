"""Why an AP is almost 0: the usual mistakes, each tried out on the detections themselves.

A mistake in how boxes are written is found by undoing it: where the detections, read as x, y, w, h, lie on the objects
and as they are do not, they are x, y, w, h.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from frcnn.data.roles import GroundTruth
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.overlap import (
    CONVINCING_SHARE,
    FOUND_IOU,
    ImageOverlap,
    best_overlaps,
    images_with_both,
    impossible_boxes,
    misread_boxes,
    share_found,
)
from frcnn.structures import Detections

DIAGNOSED_BELOW = 0.1
"""An AP under this, of 100, means that something is wrong rather than that the detector is weak."""

LOW_SCORE = 0.1
UNIFORM_SCORES = 0.01
"""A standard deviation of all scores below this is a detector that does not look at its image."""

CERTAIN_SCORE = 0.9
"""Results that all have a score above this were not scored by an untrained detector: somebody wrote one for all."""


def diagnose(
    ground_truth: GroundTruth, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None
) -> list[str]:
    """Says why detections score an AP of almost 0.

    Args:
        ground_truth: of the data set.
        detections: image id -> what was found in it, as given to the evaluator.
        weights_loaded: whether the detector's weights were trained or loaded; None where the caller does not know.

    Returns:
        sentences, at least one, the likeliest reason first. Of a detector that looks untrained this is the only one: where
        its boxes lie is chance.
    """
    if weights_loaded is False:
        return ["no weights were loaded: the detector is as it was initialised"]
    columns = DetectionColumns.of(detections)
    finite = columns.is_finite()
    if not finite.any():
        return [_nothing_found(len(ground_truth.image_ids), len(columns))]
    columns = columns.where(finite)
    if not np.isin(columns.image_ids, ground_truth.image_ids).any():
        return [_disjoint_image_ids(ground_truth, columns)]
    if _looks_untrained(columns.scores):
        return [_untrained(columns.scores, len(ground_truth.categories), weights_loaded)]
    reasons = _about_scores(columns.scores)
    disjoint_classes = _disjoint_classes(ground_truth, columns)
    reasons += disjoint_classes
    reasons += _about_boxes(ground_truth, columns, classes_explained=bool(disjoint_classes))
    return reasons or [
        "no single cause found: few objects have a box on them, however the boxes are read; look at the pictures of the"
        " detections, and train longer"
    ]


def _nothing_found(num_images: int, num_detections: int) -> str:
    if num_detections:
        return f"all {num_detections} detections hold NaN or infinite numbers: the weights have diverged"
    return (
        f"there are no detections in any of the {num_images} images: either the detector is not trained, or every score"
        " is below score_thresh"
    )


def _disjoint_image_ids(ground_truth: GroundTruth, columns: DetectionColumns) -> str:
    return (
        f"no image id of the detections ({_span(columns.image_ids)}) is one of the data set's"
        f" ({_span(ground_truth.image_ids)}): these are detections of another data set"
    )


def _looks_untrained(scores: np.ndarray) -> bool:
    return len(scores) >= 20 and scores.std() < UNIFORM_SCORES and scores.min() < CERTAIN_SCORE


def _untrained(scores: np.ndarray, num_classes: int, weights_loaded: bool | None) -> str:
    hint = "; were weights loaded?" if weights_loaded is None else ""
    return (
        f"all {len(scores)} scores lie between {scores.min():.3f} and {scores.max():.3f} (chance among"
        f" {num_classes} classes and background is {1 / (num_classes + 1):.3f}): the detector looks untrained{hint}"
    )


def _about_scores(scores: np.ndarray) -> list[str]:
    if scores.max() < LOW_SCORE:
        return [
            f"all scores are low, the highest of {len(scores)} is {scores.max():.3f}: the detector has learned little"
        ]
    return []


def _disjoint_classes(ground_truth: GroundTruth, columns: DetectionColumns) -> list[str]:
    found, wanted = set(columns.classes.tolist()), set(ground_truth.classes[~ground_truth.iscrowd].tolist())
    if found & wanted:
        return []
    names = _names(ground_truth)
    return [
        f"the detections are of {_list(names(k) for k in sorted(found))} and the objects of"
        f" {_list(names(k) for k in sorted(wanted))}: the order of the classes, or the category ids, differ"
    ]


def _about_boxes(ground_truth: GroundTruth, columns: DetectionColumns, classes_explained: bool) -> list[str]:
    images = images_with_both(ground_truth, columns)
    if not images:
        return ["no image that holds an object has a detection"]
    as_they_are = share_found(best_overlaps(images))
    if as_they_are < CONVINCING_SHARE:
        return misread_boxes(images, as_they_are) or impossible_boxes(images)
    if classes_explained:
        return []
    of_right_class = share_found(best_overlaps(images, same_class=True))
    if of_right_class < as_they_are / 4:
        return [_confused_classes(images, as_they_are, _names(ground_truth))]
    return [
        f"{of_right_class:.0%} of the objects have a box of their class on them, but wrong boxes have higher scores:"
        " not the boxes are bad but their ranking"
    ]


def _confused_classes(images: list[ImageOverlap], share: float, names: Callable[[int], str]) -> str:
    pairs: Counter[tuple[int, int]] = Counter()
    for image in images:
        iou, best = image.iou().max(dim=1)  # [G]
        found = iou >= FOUND_IOU
        pairs.update(zip(image.gt_classes[found].tolist(), image.classes[best[found]].tolist(), strict=True))
    (wanted, said), _ = max(((pair, n) for pair, n in pairs.items() if pair[0] != pair[1]), key=lambda item: item[1])
    return (
        f"{share:.0%} of the objects have a box on them, but of another class (most often {names(wanted)} is called"
        f" {names(said)}): the order of the classes, or the category ids, differ"
    )


def _names(ground_truth: GroundTruth) -> Callable[[int], str]:
    """The name of a class, also of one that the data set does not have."""
    categories = ground_truth.categories
    return lambda k: categories[k].name if 0 <= k < len(categories) else f"class {k}"


def _list(names: Iterator[str], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _span(ids: np.ndarray) -> str:
    return f"{ids.min()}..{ids.max()}"
