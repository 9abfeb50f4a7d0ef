from __future__ import annotations

import numpy as np
import pytest
import torch

from frcnn.data.images import read_image
from frcnn.data.roles import Category, Dataset, Sample
from frcnn.errors import UserError
from frcnn.inspect.boxes import _place_chip, class_color, draw_boxes
from frcnn.inspect.draw import draw_detections, draw_ground_truth, save_gallery, save_image, side_by_side
from frcnn.structures import Detections, Targets

NAMES = ["circle", "square"]


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def found(*scored: tuple[float, tuple[float, ...]]) -> Detections:
    return Detections(
        boxes=torch.tensor([box for _, box in scored]).reshape(-1, 4),
        scores=torch.tensor([score for score, _ in scored]),
        classes=torch.zeros(len(scored), dtype=torch.int64),
        index=torch.arange(len(scored)),
    )


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


def test_the_best_detection_lies_on_top():
    boxes = np.array([[50.0, 60.0, 250.0, 160.0]] * 2)
    drawn = draw_detections(grey(200, 300), boxes, np.array([0.3, 0.9]), np.array([0, 1]), NAMES)
    assert tuple(drawn[160, 150].tolist()) == class_color(1)
    drawn = draw_ground_truth(grey(200, 300), boxes, np.array([0, 1]), NAMES)
    assert tuple(drawn[160, 150].tolist()) == class_color(0)


def test_side_by_side_enlarges_small_images_and_hides_low_scores():
    """128 px become 384, three times; the halves are 8 px apart."""
    targets = Targets(torch.tensor([[40.0, 40.0, 100.0, 100.0]]), torch.tensor([0]))
    picture = side_by_side(grey(128, 128), targets, found((0.4, (40, 40, 100, 100))), NAMES, "val, image 1")
    assert picture.shape[1] == 2 * 384 + 8
    bars = picture.shape[0] - 384
    lower_edge = bars + 300
    assert tuple(picture[lower_edge, 210].tolist()) == class_color(0)
    assert tuple(picture[lower_edge, 392 + 210].tolist()) == (128, 128, 128)


def test_side_by_side_of_nothing():
    none = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    picture = side_by_side(grey(400, 500), none, found(), NAMES, "a title that is longer than the picture " * 9)
    assert picture.shape[1] == 2 * 500 + 8


class Squares(Dataset):
    categories = (Category(1, "circle"), Category(2, "square"))

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Sample:
        boxes = np.array([[10, 10, 50, 40]], dtype=np.float32)
        return Sample(grey(60, 80 + index), boxes, np.array([1]), image_id=100 + index, original_size=(60, 80 + index))


def test_gallery_is_spread_over_the_data_set_and_has_a_contact_sheet(tmp_path):
    files = save_gallery(tmp_path / "new", Squares(), {100: found((0.9, (10, 10, 50, 40)))}, title="val", num_images=3)
    assert [file.name for file in files] == ["image_100.png", "image_104.png", "image_109.png", "contact_sheet.png"]
    assert all(file.is_file() for file in files)
    assert read_image(str(files[-1])).shape[1] > 1600


def test_gallery_of_an_empty_data_set(tmp_path):
    class Empty(Squares):
        def __len__(self) -> int:
            return 0

    assert save_gallery(tmp_path, Empty(), {}, title="val") == []


def test_saved_images_are_rgb_again_when_read(tmp_path):
    image = np.zeros((4, 5, 3), dtype=np.uint8)
    image[..., 0] = 200
    save_image(tmp_path / "new" / "red.png", image)
    assert (read_image(str(tmp_path / "new" / "red.png")) == image).all()
    with pytest.raises(UserError, match=r"cannot write a picture as \.nonsense; use \.png or \.jpg"):
        save_image(tmp_path / "red.nonsense", image)
