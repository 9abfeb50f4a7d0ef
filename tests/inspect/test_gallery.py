from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from pycocotools import mask as coco_mask

from frcnn.data.images import read_image
from frcnn.data.roles import Category, Dataset, GroundTruth, Sample
from frcnn.inspect.boxes import class_color
from frcnn.inspect.gallery import save_gallery, side_by_side
from frcnn.inspect.objects import Objects, detected_objects
from frcnn.structures import Detections, EncodedMasks

CATEGORIES = (Category(1, "circle"), Category(2, "square"))


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def found(*scored: tuple[float, tuple[float, ...]]) -> Detections:
    return Detections(
        boxes=torch.tensor([box for _, box in scored]).reshape(-1, 4),
        scores=torch.tensor([score for score, _ in scored]),
        classes=torch.zeros(len(scored), dtype=torch.int64),
        index=torch.arange(len(scored)),
    )


def objects(*boxes: tuple[float, ...]) -> Objects:
    return Objects(np.array(boxes).reshape(-1, 4), np.zeros(len(boxes), np.int64), ["circle"] * len(boxes), CATEGORIES)


def test_side_by_side_enlarges_small_images():
    """128 px become 384, three times; the halves are 8 px apart."""
    picture = side_by_side(grey(128, 128), objects((40, 40, 100, 100)), objects(), "val, image 1", "detections: 0")
    assert picture.shape[1] == 2 * 384 + 8
    bars = picture.shape[0] - 384
    lower_edge = bars + 300
    assert tuple(picture[lower_edge, 210].tolist()) == class_color(0)
    assert tuple(picture[lower_edge, 392 + 210].tolist()) == (128, 128, 128)


def test_side_by_side_of_nothing():
    picture = side_by_side(grey(400, 500), objects(), objects(), "a title that is longer than the picture " * 9, "none")
    assert picture.shape[1] == 2 * 500 + 8


def test_low_scores_are_hidden():
    shown = detected_objects(found((0.4, (0, 0, 9, 9)), (0.8, (1, 1, 9, 9))), CATEGORIES, (10, 10), score_thresh=0.5)
    assert shown.labels == ["circle 0.80"]


class Squares(Dataset):
    """Ten images, each with one square in the box 10, 10, 50, 40, whose mask is the upper half of the box."""

    categories = CATEGORIES

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Sample:
        boxes = np.array([[10, 10, 50, 40]], dtype=np.float32)
        return Sample(grey(60, 80 + index), boxes, np.array([1]), image_id=100 + index, original_size=(60, 80 + index))

    def ground_truth(self) -> GroundTruth:
        return GroundTruth(
            categories=self.categories,
            image_ids=np.arange(100, 110),
            image_sizes=np.array([(60, 80 + i) for i in range(10)]),
            image_index=np.repeat(np.arange(10), 2),
            classes=np.ones(20, np.int64),
            boxes=np.tile([10.0, 10, 50, 40], (20, 1)),
            areas=np.full(20, 1200.0),
            iscrowd=np.arange(20) % 2 == 0,
            segmentation=lambda i: [[10, 10, 50, 10, 50, 25, 10, 25]] if i % 2 else [[0, 0, 80, 0, 80, 60, 0, 60]],
        )


def test_gallery_is_spread_over_the_data_set_and_has_a_contact_sheet(tmp_path):
    files = save_gallery(tmp_path / "new", Squares(), {100: found((0.9, (10, 10, 50, 40)))}, title="val", num_images=3)
    assert [file.name for file in files] == ["image_100.png", "image_104.png", "image_109.png", "contact_sheet.png"]
    assert all(file.is_file() for file in files)
    assert read_image(str(files[-1])).shape[1] > 1600


def test_a_gallery_of_masks_shows_those_of_the_ground_truth_too(tmp_path):
    """80 px become 400, five times. The object's mask ends at y = 25 and leaves out the crowd; the detection's fills its box."""
    mask = np.zeros((60, 80), np.uint8, order="F")
    mask[10:40, 10:50] = 1
    one = replace(
        found((0.9, (10, 10, 50, 40))), encoded_masks=EncodedMasks((60, 80), (coco_mask.encode(mask)["counts"],))
    )
    (file, _) = save_gallery(tmp_path, Squares(), {100: one}, title="val", num_images=1)
    picture = read_image(str(file))
    bars = picture.shape[0] - 5 * 60

    def color(half: int, x: int, y: int) -> list[int]:
        return picture[bars + 5 * y, half * (5 * 80 + 8) + 5 * x].tolist()

    assert color(0, 45, 20) != [128] * 3
    assert color(0, 45, 32) == color(0, 70, 50) == [128] * 3
    assert color(1, 45, 20) == color(1, 45, 32) != [128] * 3


def test_gallery_of_an_empty_data_set(tmp_path):
    class Empty(Squares):
        def __len__(self) -> int:
            return 0

    assert save_gallery(tmp_path, Empty(), {}, title="val") == []
