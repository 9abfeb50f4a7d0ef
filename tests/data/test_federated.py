"""What LVIS and Pascal VOC say beside COCO's fields."""

from __future__ import annotations

import pytest

from frcnn.data.annotations import read_annotations
from frcnn.errors import UserError

SIZE = {"width": 100, "height": 80}
CATEGORIES = [
    {"id": 5, "name": "cat", "frequency": "f"},
    {"id": 9, "name": "dog", "frequency": "r"},
    {"id": 7, "name": "cow"},
]
FIRST = {
    "id": 10,
    "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg",
    "neg_category_ids": [9, 7],
    "not_exhaustive_category_ids": [5],
    **SIZE,
}


def test_lvis_says_what_was_looked_for(write_coco):
    """Classes are in the order of the ids: cat 0, cow 1, dog 2. Files are named by the end of their address."""
    images = [FIRST, {"id": 20, "file_name": "b.png", "neg_category_ids": [], **SIZE}]
    store = read_annotations(write_coco([[10, 5, [0, 0, 9, 9]]], images=images, categories=CATEGORIES))
    truth = store.ground_truth()
    assert truth.absent_classes == [[2, 1], []]
    assert truth.unfinished_classes == [[0], []]
    assert [category.frequency for category in truth.categories] == ["f", None, "r"]
    assert (store.file_name(0), store.file_name(1)) == ("val2017/000000000139.jpg", "b.png")


def test_images_that_are_left_out_take_their_lists_along(write_coco):
    images = [FIRST, {"id": 20, "file_name": "b.png", "neg_category_ids": [7], **SIZE}]
    path = write_coco([[20, 5, [0, 0, 9, 9]]], images=images, categories=CATEGORIES)
    assert read_annotations(path, images_without_objects="drop").ground_truth().absent_classes == [[1]]


def test_an_unknown_category_is_named(write_coco):
    path = write_coco(images=[{**FIRST, "neg_category_ids": [5, 4]}], categories=CATEGORIES)
    with pytest.raises(UserError, match=r"image id 10: neg_category_ids names category 4, .* the 3 categories"):
        read_annotations(path)


def test_difficult_objects_of_voc(write_coco):
    row = {"image_id": 10, "category_id": 3, "bbox": [0, 0, 9, 9]}
    path = write_coco([{**row, "id": 2, "difficult": 1}, {**row, "id": 1, "difficult": 0}, {**row, "id": 3}])
    assert read_annotations(path).ground_truth().difficult.tolist() == [True, False, False]


def test_plain_coco_has_none_of_it(write_coco):
    truth = read_annotations(write_coco([[10, 3, [0, 0, 9, 9]]])).ground_truth()
    assert truth.difficult is truth.absent_classes is truth.unfinished_classes is None


def test_an_image_without_a_name_is_named(write_coco):
    with pytest.raises(UserError, match=r"images\[0\] \(id 10\): Object missing required field `file_name`"):
        read_annotations(write_coco(images=[{"id": 10, **SIZE}]))
