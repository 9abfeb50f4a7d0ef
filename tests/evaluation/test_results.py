from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frcnn.data.roles import Category
from frcnn.evaluation.results import coco_results, save_coco_results
from frcnn.evaluation.roles import ClassMetrics, EvaluationResult
from frcnn.structures import EncodedMasks

CATEGORIES = [Category(18, "cat"), Category(90, "dog")]


def test_classes_become_category_ids_and_corners_become_widths(found):
    detections = {5: found((1, 0.5, (10, 20, 40, 60))), 3: found(), 4: found((0, 0.25, (0, 0, 1, 2)))}
    assert coco_results(detections, CATEGORIES) == [
        {"image_id": 5, "category_id": 90, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.5},
        {"image_id": 4, "category_id": 18, "bbox": [0.0, 0.0, 1.0, 2.0], "score": 0.25},
    ]


def test_masks_and_keypoints_are_written_as_cocos_tools_read_them(found):
    """The mask is the first of two columns of a 2 x 2 image; a point half a pixel from the corner lies in pixel 0, 0."""
    mask = coco_mask.encode(np.asfortranarray(np.array([[1, 0], [1, 0]], np.uint8)))
    one = replace(
        found((0, 0.5, (0, 0, 1, 2))),
        encoded_masks=EncodedMasks((2, 2), (mask["counts"],)),
        keypoints=torch.tensor([[[0.5, 0.5, 0.25], [1.5, 0.0, 0.75]]]),
    )
    (result,) = json.loads(json.dumps(coco_results({1: one, 2: found()}, CATEGORIES)))
    assert result["keypoints"] == [0.0, 0.0, 0.25, 1.0, -0.5, 0.75]
    np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]), [[1, 0], [1, 0]])
    not_finite = replace(one, keypoints=torch.full((1, 2, 3), torch.nan))
    assert coco_results({1: not_finite}, CATEGORIES) == []


def test_what_json_cannot_write_is_left_out(found):
    assert (
        coco_results({1: found((0, float("nan"), (0, 0, 1, 1)), (0, 0.5, (0, 0, 1, float("inf"))))}, CATEGORIES) == []
    )


def test_files_hold_exactly_what_was_found(tmp_path, found):
    detections = {1: found((0, 0.1, (0.1, 0.2, 30.3, 40.7)))}
    save_coco_results(tmp_path / "new" / "val.json", detections, CATEGORIES)
    assert json.loads((tmp_path / "new" / "val.json").read_text()) == coco_results(detections, CATEGORIES)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["val.json"]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch, found):
    path = tmp_path / "val.json"
    save_coco_results(path, {}, CATEGORIES)

    def full_disk(self, target):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_coco_results(path, {1: found((0, 0.1, (0, 0, 1, 1)))}, CATEGORIES)
    assert path.read_text() == "[]"
    assert [file.name for file in tmp_path.iterdir()] == ["val.json"]


def test_table_is_aligned_and_says_not_available():
    metrics = {"bbox/AP": 50.458, "bbox/AP50": 100.0, "bbox/APs": None}
    rows = [
        ClassMetrics("cat", 1234, {"AP": 50.46, "AP50": None}),
        ClassMetrics("platelets", 0, {"AP": None, "AP50": None}),
    ]
    assert EvaluationResult(metrics, rows, ["a reason"]).table() == (
        "bbox        AP    AP50     APs\n"
        "          50.5   100.0     n/a\n"
        "\n"
        "class       objects      AP    AP50\n"
        "cat           1,234    50.5     n/a\n"
        "platelets         0     n/a     n/a\n"
        "\n"
        "note: a reason"
    )
    assert EvaluationResult(metrics, rows).table(max_classes=1).endswith("... and 1 more classes")
