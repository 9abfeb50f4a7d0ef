from __future__ import annotations

import numpy as np
import pytest
import torch

from frcnn.data.images import read_image
from frcnn.data.masks import PolygonMask
from frcnn.data.roles import Category, Sample
from frcnn.errors import UserError
from frcnn.inspect.boxes import _place_chip, class_color, draw_boxes
from frcnn.inspect.draw import draw_detections, draw_ground_truth, save_image
from frcnn.inspect.shapes import OPACITY, draw_keypoints, draw_mask
from frcnn.structures import Detections

CATEGORIES = (Category(1, "circle"), Category(2, "square", ("left", "right", "top"), ((0, 1), (1, 2))))


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def test_a_box_is_drawn_in_the_colour_of_its_class_and_the_image_stays():
    image = grey(200, 300)
    drawn = draw_boxes(image, np.array([[50.0, 60.0, 250.0, 160.0]]), np.array([1]), ["square"])
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert tuple(drawn[160, 150].tolist()) == class_color(1)  # the middle of the lower edge
    assert tuple(drawn[110, 150].tolist()) == (128, 128, 128)  # the middle of the box


def test_many_classes_have_different_colours():
    assert len({class_color(k) for k in range(100)}) == 100


def test_nothing_and_the_impossible_are_drawn_without_complaint():
    image = grey(40, 40)
    assert (draw_boxes(image, np.zeros((0, 4)), np.zeros(0, dtype=int), []) == 128).all()
    assert (draw_boxes(image, np.array([[0, 0, np.nan, 5]]), np.array([0]), ["circle"]) == 128).all()
    far_outside, one_pixel = [-500.0, -500.0, 900.0, 900.0], [5.0, 5.0, 6.0, 6.0]
    draw_boxes(
        image, np.array([far_outside, one_pixel]), np.array([0, 1]), ["a label that is wider than the image"] * 2
    )


@pytest.mark.parametrize("box", [(0, 0, 30, 30), (270, 0, 299, 30), (0, 170, 30, 199), (270, 170, 299, 199)])
def test_labels_stay_inside_the_image(box):
    chip = _place_chip(grey(200, 300), "square 0.93", box, class_color(0), [])
    assert 0 <= chip.x1 < chip.x2 <= 300
    assert 0 <= chip.y1 < chip.y2 <= 200


def test_labels_do_not_hide_each_other_where_there_is_room():
    canvas, box = grey(200, 300), (100, 100, 200, 180)
    chips = []
    for _ in range(4):
        chips.append(_place_chip(canvas, "square 0.93", box, class_color(0), chips))
    for i, chip in enumerate(chips):
        for other in chips[:i]:
            assert not chip.overlaps(other.x1, other.y1, other.x2 - other.x1, other.y2 - other.y1)


def found(boxes, scores, classes, **more) -> Detections:
    return Detections(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(classes),
        torch.arange(len(scores)),
        **more,
    )


def test_the_best_detection_lies_on_top_and_low_scores_are_left_out():
    same = [[50.0, 60.0, 250.0, 160.0]] * 2
    drawn = draw_detections(grey(200, 300), found(same, [0.3, 0.9], [0, 1]), CATEGORIES)
    assert tuple(drawn[160, 150].tolist()) == class_color(1)
    none = draw_detections(grey(200, 300), found(same, [0.3, 0.9], [0, 1]), CATEGORIES, score_thresh=0.95)
    assert (none == 128).all()
    sample = Sample(grey(200, 300), np.array(same, np.float32), np.array([0, 1]), 1, (200, 300))
    assert tuple(draw_ground_truth(sample, CATEGORIES)[160, 150].tolist()) == class_color(0)


def tinted(color) -> list[int]:
    return [round(128 * (1 - OPACITY) + part * OPACITY) for part in color]


def test_a_mask_is_tinted_and_outlined_and_the_rest_stays():
    canvas, mask = grey(100, 100), np.zeros((100, 100), bool)
    mask[20:60, 30:70] = True
    draw_mask(canvas, mask, class_color(1))
    assert canvas[40, 50].tolist() == tinted(class_color(1))
    assert canvas[20, 50].tolist() == list(class_color(1))  # its upper edge
    assert canvas[10, 50].tolist() == [128] * 3
    half_the_size = mask[::2, ::2]
    again = grey(100, 100)
    draw_mask(again, half_the_size, class_color(1))
    assert (again == canvas).all()
    draw_mask(again, np.zeros((100, 100), bool), class_color(0))
    assert (again == canvas).all()


def test_keypoints_that_are_seen_are_joined():
    """Of three points in a row the last is not labelled: there is a bone between the first two and none to the last."""
    canvas = grey(100, 200)
    points = np.array([[20.0, 50, 2], [100, 50, 1], [180, 50, 0]])
    draw_keypoints(canvas, points, ((0, 1), (1, 2)), class_color(0))
    assert canvas[50, 20].tolist() == canvas[50, 100].tolist() == list(class_color(0))
    assert canvas[50, 60].tolist() == list(class_color(0))
    assert canvas[50, 140].tolist() == canvas[50, 180].tolist() == [128] * 3
    draw_keypoints(canvas, np.array([[np.nan, 0, 1], [1e12, -1e12, 1], [5, 5, 1]]), ((0, 1), (1, 2)), class_color(0))


def test_detections_and_samples_show_masks_and_keypoints():
    """A mask of ones fills its box; the polygon of the sample is the left half of it."""
    box, points = [50.0, 60.0, 250.0, 160.0], np.array([[[60.0, 70.0, 2], [200, 70, 2], [200, 150, 0]]], np.float32)
    one = found([box], [0.9], [1], masks=torch.ones(1, 28, 28), keypoints=torch.from_numpy(points))
    drawn = draw_detections(grey(200, 300), one, CATEGORIES)
    assert drawn[120, 200].tolist() == tinted(class_color(1))
    assert drawn[70, 130].tolist() == list(class_color(1))  # the bone
    polygon = PolygonMask((np.array([[50.0, 60], [150, 60], [150, 160], [50, 160]]),))
    boxes = np.array([box], np.float32)
    sample = Sample(grey(200, 300), boxes, np.array([1]), 1, (200, 300), masks=[polygon], keypoints=points)
    drawn = draw_ground_truth(sample, CATEGORIES)
    assert drawn[120, 100].tolist() == tinted(class_color(1))
    assert drawn[120, 200].tolist() == [128] * 3
    assert drawn[70, 180].tolist() == list(class_color(1))


def test_saved_images_are_rgb_again_when_read(tmp_path):
    image = np.zeros((4, 5, 3), dtype=np.uint8)
    image[..., 0] = 200
    save_image(tmp_path / "new" / "red.png", image)
    assert (read_image(str(tmp_path / "new" / "red.png")) == image).all()
    with pytest.raises(UserError, match=r"cannot write a picture as \.nonsense; use \.png or \.jpg"):
        save_image(tmp_path / "red.nonsense", image)
