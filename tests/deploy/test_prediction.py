"""Masks and keypoints of predictions, with a detector that a reader can follow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from frcnn.assembly import about_checkpoint
from frcnn.data.roles import Category
from frcnn.deploy.predict import Predictor, as_category
from frcnn.deploy.predict_files import predict_files
from frcnn.modeling.roles import Detector
from frcnn.structures import Batch, Detections, Output

CATEGORIES = [Category(3, "face", ("left", "right"), ((0, 1),)), Category(7, "shadow")]


class TwoFaces(Detector):
    """Finds the boxes 10, 10, 30, 30 (its mask is the left half, score 0.9) and 40, 10, 60, 30 (the whole box, 0.4)."""

    def forward(self, batch: Batch) -> Output:
        masks = torch.ones(2, 28, 28)
        masks[0, :, 14:] = 0
        boxes = torch.tensor([[10.0, 10, 30, 30], [40, 10, 60, 30]])
        points = torch.tensor([[[12.5, 20.5, 0.9], [28.5, 20.5, 0.8]], [[42.5, 20.5, 0.9], [58.5, 20.5, 0.01]]])
        found = Detections(
            boxes, torch.tensor([0.9, 0.4]), torch.tensor([0, 1]), torch.arange(2), masks=masks, keypoints=points
        )
        return Output([found] * len(batch), {})


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(TwoFaces(2), [], CATEGORIES)


def test_masks_are_in_the_whole_image(predictor: Predictor) -> None:
    found = predictor(np.zeros((40, 80, 3), np.uint8))
    expected = np.zeros((2, 40, 80), bool)
    expected[0, 10:30, 10:20] = True
    expected[1, 10:30, 40:60] = True
    assert found.masks is not None and found.masks.dtype == bool
    np.testing.assert_array_equal(found.masks, expected)
    np.testing.assert_array_equal(found.mask(1), expected[1])
    assert found.keypoints is not None
    assert found.keypoints[0, 0].tolist() == pytest.approx([12.5, 20.5, 0.9])
    best = found.above(0.5)
    np.testing.assert_array_equal(best.masks, expected[:1])
    assert best.keypoints is not None and best.keypoints.shape == (1, 2, 3)
    assert found.above(0.95).masks is not None and found.above(0.95).masks.shape == (0, 40, 80)


def test_results_hold_run_lengths_and_the_pixels_of_keypoints(predictor: Predictor) -> None:
    results = json.loads(json.dumps(predictor(np.zeros((40, 80, 3), np.uint8)).to_coco(5)))
    assert coco_mask.area(results[0]["segmentation"]) == 200
    assert results[0]["segmentation"]["size"] == [40, 80]
    assert results[0]["keypoints"] == pytest.approx([12, 20, 0.9, 28, 20, 0.8])


def test_the_picture_shows_them(predictor: Predictor) -> None:
    """Where the picture differs from one without masks is inside of them, and from one without keypoints is the bone."""
    found = predictor(np.full((40, 80, 3), 128, np.uint8))
    masked = (found.draw() != replace(found, encoded_masks=None).draw()).any(axis=2)
    assert masked.any() and found.masks is not None and not masked[~found.masks.any(axis=0)].any()
    boned = (found.draw() != replace(found, keypoints=None).draw()).any(axis=2)
    assert boned[:, :40].any() and not boned[:15].any()


def test_a_folder_becomes_a_data_set_with_masks_that_cocos_tools_open(predictor: Predictor, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 80, 3), np.uint8))
    predict_files(predictor, tmp_path / "a.png", tmp_path / "out", score_thresh=0.1, say=lambda _: None)
    coco = COCO(str(tmp_path / "out" / "predictions.json"))
    assert coco.annToMask(coco.loadAnns([2])[0]).sum() == 400
    assert [annotation["area"] for annotation in coco.loadAnns([1, 2])] == [200, 400]
    assert coco.loadCats([3])[0]["skeleton"] == [[1, 2]]
    assert "keypoints" not in coco.loadCats([7])[0]


def test_a_model_without_masks_says_so(predictor: Predictor) -> None:
    class OneBox(Detector):
        def forward(self, batch: Batch) -> Output:
            one = torch.zeros(1, dtype=torch.int64)
            return Output([Detections(torch.ones(1, 4), torch.ones(1), one, one)] * len(batch), {})

    found = Predictor(OneBox(2), [], CATEGORIES)(np.zeros((8, 8, 3), np.uint8))
    assert found.masks is None and found.keypoints is None
    assert set(found.to_coco()[0]) == {"image_id", "category_id", "bbox", "score"}
    with pytest.raises(ValueError, match="no mask branch"):
        found.mask(0)


def test_checkpoints_carry_what_the_keypoints_are_called(tmp_path: Path) -> None:
    torch.save(about_checkpoint("", CATEGORIES)["categories"], tmp_path / "c.pth")
    plain = torch.load(tmp_path / "c.pth", weights_only=True)
    assert [as_category(category) for category in plain] == CATEGORIES
