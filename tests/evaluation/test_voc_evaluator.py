from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.evaluation.voc import VOCEvaluator, area_under_curve, mean_at_11_recalls

CAT, DOG = 0, 1
SQUARE, SECOND, ELSEWHERE = (100, 100, 150, 150), (200, 200, 250, 250), (300, 300, 360, 360)


def test_right_wrong_right_of_two_objects(dataset_of, found):
    """Precision is 1 at recall 0.5 and 2/3 at recall 1: the area is 0.5 + 0.5 * 2/3; at 11 recalls (6 * 1 + 5 * 2/3) / 11."""
    dataset = dataset_of([(1, CAT, SQUARE), (1, CAT, SECOND)], image_ids=[1])
    detections = {1: found((CAT, 0.9, SQUARE), (CAT, 0.8, ELSEWHERE), (CAT, 0.7, SECOND))}
    area = VOCEvaluator(dataset)(detections)
    assert area.metrics["bbox/AP50"] == pytest.approx(100 * (0.5 + 1 / 3))
    assert VOCEvaluator(dataset, metric="11_point")(detections).metrics["bbox/AP50"] == pytest.approx(
        100 * (6 + 10 / 3) / 11
    )
    assert tuple(area.metrics) == VOCEvaluator.metric_names
    cat, dog = area.per_class
    assert (cat.num_objects, dog.num_objects, dog.metrics["AP50"]) == (2, 0, None)
    assert not area.notes


def test_a_second_box_on_the_same_object_is_wrong_and_order_is_by_score_over_all_images(dataset_of, found):
    """Best first: right, again on the same object (wrong), right: the same 1 and 2/3."""
    dataset = dataset_of([(1, CAT, SQUARE), (2, CAT, SQUARE)])
    detections = {2: found((CAT, 0.5, SQUARE)), 1: found((CAT, 0.9, SQUARE), (CAT, 0.8, SQUARE))}
    assert VOCEvaluator(dataset)(detections).metrics["bbox/AP50"] == pytest.approx(100 * (0.5 + 1 / 3))


def test_iou_of_exactly_a_half_is_enough_and_higher_thresholds_ask_for_more(dataset_of, found):
    """50x25 inside 50x50 is an IoU of 0.5, one of ten thresholds; 50x40 is 0.8, seven of them."""
    dataset = dataset_of([(1, CAT, SQUARE)], image_ids=[1])
    half = VOCEvaluator(dataset)({1: found((CAT, 0.9, (100, 100, 150, 125)))}).metrics
    assert half == {"bbox/AP": pytest.approx(10), "bbox/AP50": pytest.approx(100), "bbox/AP75": 0}
    assert VOCEvaluator(dataset)({1: found((CAT, 0.9, (100, 100, 150, 140)))}).metrics["bbox/AP"] == pytest.approx(70)


def test_difficult_objects_and_crowds_are_neither_found_nor_missed(dataset_of, found):
    objects = [(1, CAT, SQUARE), (1, CAT, SECOND), (1, CAT, ELSEWHERE, "crowd")]
    dataset = dataset_of(objects, image_ids=[1])
    dataset.truth = replace(dataset.truth, difficult=np.array([False, True, False]))
    on_all = [(CAT, 0.95, SECOND), (CAT, 0.94, SECOND), (CAT, 0.93, ELSEWHERE), (CAT, 0.9, SQUARE)]
    for detections in (on_all, on_all[-1:]):
        result = VOCEvaluator(dataset)({1: found(*detections)})
        assert result.metrics["bbox/AP50"] == pytest.approx(100)
        assert result.per_class[CAT].num_objects == 1


def test_nothing_found_is_zero_and_nothing_to_find_is_not_available(dataset_of, found):
    result = VOCEvaluator(dataset_of([(1, CAT, SQUARE)], image_ids=[1]))({1: found()})
    assert result.metrics["bbox/AP50"] == 0
    assert "no detections" in result.notes[0]
    result = VOCEvaluator(dataset_of([], image_ids=[1]))({1: found((CAT, 0.9, SQUARE))})
    assert set(result.metrics.values()) == {None}
    assert "no objects" in result.notes[0]
    with pytest.raises(ValueError, match="metric must be area or 11_point, got '2007'"):
        VOCEvaluator(dataset_of([]), metric="2007")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_area_is_the_sum_over_the_steps_of_recall(outcomes):
    """Against the definition written out: at each step of recall, the best precision from there on."""
    found = np.cumsum(outcomes)
    recall, precision = found / len(outcomes), found / np.arange(1, len(outcomes) + 1)
    steps = [i for i, right in enumerate(outcomes) if right]
    expected = sum(precision[i:].max() for i in steps) / len(outcomes)
    assert area_under_curve(recall, precision) == pytest.approx(expected)
    assert 0 <= mean_at_11_recalls(recall, precision) <= 1
