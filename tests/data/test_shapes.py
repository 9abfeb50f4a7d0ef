"""The synthetic data set: reproducible, in COCO's form, with boxes that fit."""

import cv2
import numpy as np
import pytest

from frcnn.data.coco import CocoDataset
from frcnn.data.shapes import SHAPES, draw_image, make_shapes
from frcnn.ops.boxes import box_iou


def test_the_same_seed_gives_the_same_files(tmp_path):
    for folder in ("a", "b"):
        make_shapes(tmp_path / folder, num_train=6, num_test=3, seed=4)
    make_shapes(tmp_path / "c", num_train=6, num_test=3, seed=5)
    names = sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.*"))
    assert len(names) == 11
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "train.json").read_bytes() != (tmp_path / "c" / "train.json").read_bytes()


def test_more_images_leave_the_first_as_they_are(tmp_path):
    make_shapes(tmp_path / "few", num_train=2, num_test=0)
    make_shapes(tmp_path / "many", num_train=4, num_test=0)
    name = "images/train_000002.jpg"
    assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_it_reads_as_a_coco_data_set(tmp_path):
    make_shapes(tmp_path, num_train=150, num_test=5, seed=0)
    dataset = CocoDataset(annotations=str(tmp_path / "train.json"), images=str(tmp_path / "images"))
    assert [category.name for category in dataset.categories] == list(SHAPES)
    samples = [dataset[index] for index in range(len(dataset))]
    assert len(samples) == 150
    counts = [len(sample.boxes) for sample in samples]
    assert 0 < counts.count(0) < 15
    assert max(counts) == 5
    assert {int(k) for sample in samples for k in sample.classes} == {0, 1, 2}
    sides = np.concatenate([sample.boxes[:, 2:] - sample.boxes[:, :2] for sample in samples]).max(axis=1)
    assert 15.9 < sides.min() < 20
    assert 60 < sides.max() < 64.1


def test_overlap_is_limited():
    import torch

    for seed in range(60):
        boxes = torch.tensor(draw_image(128, np.random.default_rng(seed))[1], dtype=torch.float32)
        iou = box_iou(boxes, boxes).fill_diagonal_(0)
        assert iou.numel() == 0 or iou.max() <= 0.3


def test_boxes_fit_the_drawn_pixels(monkeypatch):
    black = np.zeros((128, 128, 3), np.float32)
    monkeypatch.setattr("frcnn.data.shapes._background", lambda size, rng: black.copy())
    monkeypatch.setattr("frcnn.data.shapes._color", lambda background, rng: np.array([255.0, 255.0, 255.0]))
    monkeypatch.setattr("frcnn.data.shapes.MAX_OBJECTS", 1)
    seen = set()
    for seed in range(60):
        image, boxes, classes, _ = draw_image(128, np.random.default_rng(seed))
        assert len(boxes) == len(classes) <= 1
        if len(boxes):
            rows, columns = np.nonzero(image[..., 0])
            bounds = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(bounds, boxes[0], atol=1.3)
            width, height = boxes[0, 2:] - boxes[0, :2]
            seen.add(SHAPES[classes[0]])
            if SHAPES[classes[0]] == "circle":
                assert width == pytest.approx(height)
                assert image[..., 0].sum() / 255 == pytest.approx(np.pi / 4 * width * height, rel=0.03)
    assert seen == set(SHAPES)


def test_an_image_too_small_is_refused(tmp_path):
    with pytest.raises(ValueError, match="image_size must be at least 32 pixels, got 16"):
        make_shapes(tmp_path, num_train=1, num_test=1, image_size=16)


def test_files_are_rgb_and_small(tmp_path):
    make_shapes(tmp_path, num_train=1, num_test=0, image_size=64)
    assert cv2.imread(str(tmp_path / "images" / "train_000001.jpg")).shape == (64, 64, 3)
