from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frcnn.errors import UserError
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.lvis import LVISEvaluator, best_of_each_image
from frcnn.structures import EncodedMasks

CAT, DOG = 0, 1
SQUARE, ELSEWHERE = (100, 100, 150, 150), (300, 300, 360, 360)


@pytest.fixture
def federated(dataset_of):
    """A cat, which is frequent, in image 1 and a dog, which is rare, in image 2."""

    def make(absent=((), ()), unfinished=((), ())):
        dataset = dataset_of([(1, CAT, SQUARE), (2, DOG, SQUARE)])
        cat, dog = dataset.truth.categories
        dataset.truth = replace(
            dataset.truth,
            categories=[replace(cat, frequency="f"), replace(dog, frequency="r")],
            absent_classes=absent,
            unfinished_classes=unfinished,
        )
        return dataset

    return make


def test_a_class_that_nobody_looked_for_cannot_be_wrong(federated, found):
    """A dog is found in image 1 too, with a higher score than the dog of image 2.

    Where people have looked for dogs in image 1, it is wrong: precision is 1/2 at every recall. Otherwise it does not count.
    """
    detections = {1: found((CAT, 0.9, SQUARE), (DOG, 0.95, ELSEWHERE)), 2: found((DOG, 0.9, SQUARE))}
    looked_for = LVISEvaluator(federated(absent=((DOG,), ())))(detections).metrics
    assert looked_for["bbox/APr"] == pytest.approx(50)
    assert looked_for["bbox/APf"] == pytest.approx(100)
    assert looked_for["bbox/AP"] == pytest.approx(75)
    assert looked_for["bbox/APc"] is None
    unknown = LVISEvaluator(federated(absent=((), ())))(detections).metrics
    assert unknown["bbox/APr"] == unknown["bbox/AP"] == pytest.approx(100)


def test_where_not_every_object_is_annotated_a_further_detection_is_not_wrong(federated, found):
    detections = {1: found((CAT, 0.95, ELSEWHERE), (CAT, 0.9, SQUARE)), 2: found((DOG, 0.9, SQUARE))}
    assert LVISEvaluator(federated())(detections).metrics["bbox/APf"] == pytest.approx(50)
    unfinished = LVISEvaluator(federated(unfinished=((CAT,), ())))(detections)
    assert unfinished.metrics["bbox/APf"] == pytest.approx(100)
    assert [(row.name, row.num_objects) for row in unfinished.per_class] == [("cat", 1), ("dog", 1)]


def test_a_class_of_unknown_frequency_counts_in_ap_alone_and_is_named(federated, found):
    """The cat is found, the dog is not: AP is the mean of 100 and 0, whatever is known of the cat's frequency."""
    dataset = federated()
    detections = {1: found((CAT, 0.9, SQUARE)), 2: found()}
    assert not any("frequency" in note for note in LVISEvaluator(dataset)(detections).notes)
    cat, dog = dataset.truth.categories
    dataset.truth = replace(dataset.truth, categories=[replace(cat, frequency=None), dog])
    result = LVISEvaluator(dataset)(detections)
    assert result.metrics["bbox/AP"] == pytest.approx(50)
    assert (result.metrics["bbox/APf"], result.metrics["bbox/APr"]) == (None, 0)
    expected = (
        f"1 of 2 categories have no frequency (r, c or f), such as '{cat.name}': they count in AP, and in none of"
    )
    assert [note for note in result.notes if "frequency" in note] == [f"{expected} APr, APc and APf"]


def test_masks(federated, found):
    """The cat's mask covers 38 of its 50 rows: found at the six thresholds from 0.50 to 0.75."""
    dataset = federated()
    corners = [[100, 100, 150, 100, 150, 150, 100, 150]]
    dataset.truth = replace(dataset.truth, segmentation=lambda i: corners)
    mask = np.zeros((480, 640), np.uint8, order="F")
    mask[100:138, 100:150] = 1
    encoded = EncodedMasks((480, 640), (coco_mask.encode(mask)["counts"],))
    evaluator = LVISEvaluator(dataset, tasks=("bbox", "segm"))
    result = evaluator({1: replace(found((CAT, 0.9, SQUARE)), encoded_masks=encoded), 2: found()})
    assert result.metrics["bbox/APf"] == pytest.approx(100)
    assert result.metrics["segm/APf"] == pytest.approx(60)
    assert result.metrics["segm/APr"] == 0
    assert tuple(result.metrics) == evaluator.metric_names


def test_at_most_300_detections_of_an_image_count_over_all_classes(federated, found):
    """300 wrong cats with higher scores leave no place for the dog of image 2."""
    wrong = [(CAT, 0.9, ELSEWHERE)] * 300
    detections = {1: found((CAT, 0.9, SQUARE)), 2: found((DOG, 0.5, SQUARE), *wrong)}
    assert LVISEvaluator(federated())(detections).metrics["bbox/APr"] == 0
    detections = {1: found((CAT, 0.9, SQUARE)), 2: found((DOG, 0.5, SQUARE), *wrong[:299])}
    assert LVISEvaluator(federated())(detections).metrics["bbox/APr"] == pytest.approx(100)
    columns = DetectionColumns.of({7: found((0, 0.1, SQUARE), (0, 0.3, SQUARE), (0, 0.2, SQUARE)), 3: found()})
    assert best_of_each_image(columns, 2).scores.tolist() == pytest.approx([0.3, 0.2])


def test_a_data_set_that_does_not_say_what_was_looked_for_is_refused(dataset_of):
    evaluator = LVISEvaluator(dataset_of([(1, CAT, SQUARE)]))
    with pytest.raises(UserError, match="have no neg_category_ids, so nobody knows"):
        evaluator.check(())
    with pytest.raises(UserError, match="have no neg_category_ids"):
        evaluator({})
    with pytest.raises(ValueError, match="tasks must be one or more of bbox, segm"):
        LVISEvaluator(dataset_of([]), tasks=("keypoints",))
