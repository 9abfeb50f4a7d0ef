"""Reading COCO JSON: what is kept, what is remapped, what changes nothing, and what a person is told."""

import json
import math

import numpy as np
import pytest

from frcnn.data.annotations import read_annotations
from frcnn.errors import UserError


def message_of(path, **options):
    with pytest.raises(UserError) as caught:
        read_annotations(path, **options)
    return str(caught.value)


def test_objects_are_sorted_by_image_and_boxes_are_corners(write_coco):
    store = read_annotations(write_coco([[20, 7, [1, 2, 3, 4]], [10, 3, [5, 6, 10, 20]], [20, 3, [0, 0, 100, 80]]]))
    assert len(store) == 2
    assert store.image_ids.tolist() == [10, 20]
    assert [store.file_name(i) for i in range(2)] == ["a.png", "b.png"]
    assert store.annotation_ids.tolist() == [101, 100, 102]
    boxes, classes = store.targets(1)
    assert boxes.tolist() == [[1, 2, 4, 6], [0, 0, 100, 80]]
    assert boxes.dtype == np.float32
    assert classes.tolist() == [1, 0]
    truth = store.ground_truth()
    assert truth.image_index.tolist() == [0, 1, 1]
    assert truth.boxes.tolist() == [[5, 6, 15, 26], [1, 2, 4, 6], [0, 0, 100, 80]]
    assert truth.areas.tolist() == [200, 12, 8000]
    assert truth.image_sizes.tolist() == [[80, 100], [80, 100]]


def test_category_ids_of_any_kind_are_remapped_in_sorted_order(write_coco):
    categories = [{"id": 90, "name": "c"}, {"id": 0, "name": "a"}, {"id": 5, "name": "b"}]
    store = read_annotations(write_coco([[10, 90, [0, 0, 5, 5]], [10, 0, [0, 0, 5, 5]]], categories=categories))
    assert [category.name for category in store.categories] == ["a", "b", "c"]
    assert store.targets(0)[1].tolist() == [2, 0]
    assert [category.id for category in store.categories] == [0, 5, 90]


def test_missing_fields_and_odd_ids_change_nothing(write_coco):
    full = [
        {"id": i, "image_id": 10, "category_id": 3, "bbox": [i, 0, 10, 5], "area": 50, "iscrowd": 0} for i in range(3)
    ]
    bare = [{key: row[key] for key in ("image_id", "category_id", "bbox")} for row in full]
    twice = [{**row, "id": 0, "iscrowd": False, "area": None} for row in full]
    expected = read_annotations(write_coco(full)).ground_truth()
    for rows in (bare, twice):
        truth = read_annotations(write_coco(rows)).ground_truth()
        for name in ("image_index", "classes", "boxes", "areas", "iscrowd"):
            np.testing.assert_array_equal(getattr(truth, name), getattr(expected, name))


def test_crowds_are_kept_for_evaluation_and_not_learnt(write_coco):
    crowd = {"id": 1, "image_id": 10, "category_id": 3, "bbox": [0, 0, 50, 50], "iscrowd": 1, "area": 99.5}
    store = read_annotations(write_coco([crowd, [10, 7, [1, 1, 2, 2]]]))
    assert store.targets(0)[1].tolist() == [1]
    assert store.ground_truth().iscrowd.tolist() == [True, False]
    assert store.ground_truth().areas.tolist() == [99.5, 4]


def test_segmentation_stays_in_the_file_until_asked_for(tmp_path, make_coco):
    rle = {"counts": "abc", "size": [80, 100]}
    box = {"image_id": 20, "category_id": 3, "bbox": [0, 0, 1, 1]}
    rows = [{**box, "segmentation": [[1.5, 2]]}, {**box, "image_id": 10, "segmentation": rle}, box]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(make_coco(rows), indent=1))
    store = read_annotations(str(path))
    assert [store.segmentation(i) for i in range(3)] == [rle, [[1.5, 2]], None]
    path.write_text("{}")
    with pytest.raises(UserError, match="has changed since this run read it"):
        store.segmentation(0)


def test_segmentation_is_found_behind_a_nan(tmp_path, make_coco):
    rows = [
        {"image_id": 10, "category_id": 3, "bbox": [0, 0, 9, 9], "area": area, "segmentation": [[area, index]]}
        for index, area in enumerate((math.nan, math.inf, 4.0, -math.inf, 5.0))
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(make_coco(rows)))
    store = read_annotations(str(path))
    assert [store.segmentation(i) for i in range(5)] == [[[None, 0]], [[None, 1]], [[4.0, 2]], [[None, 3]], [[5.0, 4]]]
    assert store.ground_truth().areas.tolist() == [81, 81, 4, 81, 5]


def test_a_file_without_objects_can_be_tested_on(write_coco):
    store = read_annotations(write_coco([]))
    assert store.targets(1)[0].shape == (0, 4)
    assert store.ground_truth().boxes.shape == (0, 4)
    assert "2 images, 0 objects of 2 classes, 0 crowds; kept 2 images without objects" in store.notes


def test_images_without_objects_can_be_dropped_and_are_counted(write_coco):
    crowd = {"image_id": 20, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    store = read_annotations(write_coco([[10, 3, [0, 0, 5, 5]], crowd]), images_without_objects="drop")
    assert store.image_ids.tolist() == [10]
    assert store.ground_truth().iscrowd.tolist() == [False]
    assert "dropped 1 of 2 images without objects: 0 have no annotation, 1 only crowds" in store.notes[0]


def test_nothing_left_says_why(write_coco):
    crowd = {"image_id": 20, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    path = write_coco([[10, 3, [0, 0, 0, 5]], crowd])
    message = message_of(path, images_without_objects="drop", on_bad_annotation="skip")
    assert path in message
    assert "leaves none of the 2 images" in message
    assert "0 have no annotation, 1 only crowds, 1 only annotations that were skipped" in message


BAD = [
    ([99, 3, [0, 0, 5, 5]], "1 with an unknown image", "image_id 99, expected one of the 2 images"),
    ([10, 4, [0, 0, 5, 5]], "1 with an unknown category", "category_id 4, expected one of [3, 7]"),
    ([10, 3, [0, math.nan, 5, 5]], "1 with NaN or infinity in the box", "bbox [0.0, nan, 5.0, 5.0], expected four"),
    ([10, 3, [0, 0, math.inf, 5]], "1 with NaN or infinity in the box", "expected four finite numbers"),
    ([10, 3, [0, 0, 0, 5]], "1 with width or height <= 0", "expected width > 0 and height > 0"),
    ([10, 3, [5, 5, 5, -2]], "1 with width or height <= 0", "bbox [5.0, 5.0, 5.0, -2.0]"),
    ([10, 3, [90.0, 5, 1e-9, 2]], "1 with width or height <= 0", "expected width > 0"),
    ([10, 3, [100, 5, 5, 2]], "1 wholly outside the image", "inside the image, which is 100 wide and 80 high"),
    ([10, 3, [5, -9, 5, 9]], "1 wholly outside the image", "bbox [5.0, -9.0, 5.0, 9.0]"),
]


@pytest.mark.parametrize(("row", "cause", "value"), BAD)
def test_a_bad_annotation_stops_the_run_in_one_line(write_coco, row, cause, value):
    path = write_coco([[10, 3, [0, 0, 5, 5]], row])
    message = message_of(path)
    for part in (
        path,
        "1 of 2 annotations",
        cause,
        f"annotation 101 of image {row[0]}",
        value,
        "on_bad_annotation: skip",
    ):
        assert part in message
    assert "\n" not in message


def test_bad_annotations_can_be_skipped_and_are_counted_by_cause(write_coco):
    rows = [[10, 3, [0, 0, 5, 5]], *(row for row, _, _ in BAD)]
    store = read_annotations(write_coco(rows), on_bad_annotation="skip")
    assert store.annotation_ids.tolist() == [100]
    note = store.notes[1]
    assert note.startswith("skipped 9 of 10 annotations: ")
    for cause in ("1 with an unknown image", "2 with NaN", "3 with width or height <= 0", "2 wholly outside the image"):
        assert cause in note


def test_an_annotation_without_an_id_is_named_by_its_place(write_coco):
    row = {"image_id": 10, "category_id": 3, "bbox": [0, 0, 0, 5]}
    assert "annotations[0], which has no id, of image 10" in message_of(write_coco([row]))


def test_overhanging_boxes_are_clipped_to_learn_and_counted_if_by_more_than_a_pixel(write_coco):
    rows = [[10, 3, [-4, 10, 20, 20]], [10, 3, [90, 70, 10.5, 10.5]], [20, 3, [5, 5, 5, 5]]]
    store = read_annotations(write_coco(rows))
    assert store.targets(0)[0].tolist() == [[0, 10, 16, 30], [90, 70, 100, 80]]
    assert "clipped 1 boxes" in store.notes[1]
    assert "4 px: annotation 100 of image 10: bbox [-4.0, 10.0, 20.0, 20.0]" in store.notes[1]
    assert store.ground_truth().boxes[0].tolist() == [-4, 10, 16, 30]


def test_normalised_boxes_are_recognised(write_coco):
    rng = np.random.default_rng(0)
    rows = [[10, 3, [*rng.uniform(0, 0.5, 2), *rng.uniform(0.1, 0.5, 2)]] for _ in range(5)]
    for option in ("error", "skip"):
        message = message_of(write_coco(rows), on_bad_annotation=option)
        assert "all 5 boxes look normalised" in message
        assert "multiply by the image's width and height" in message


def test_one_pixel_boxes_are_not_taken_for_normalised(write_coco):
    assert len(read_annotations(write_coco([[10, 3, [0, 0, 1, 1]]])).annotation_ids) == 1


def test_corner_boxes_are_recognised(write_coco):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, (60, 40), (20, 2))
    rows = [[10, 3, [*low, *(low + rng.uniform(10, 40, 2))]] for low in corners]
    message = message_of(write_coco(rows))
    assert "the boxes look like [x1, y1, x2, y2]" in message
    assert "subtract the first two numbers from the last two" in message


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            {"image_id": 10, "category_id": 3, "bbox": [0, 0, "5", 5], "id": 42},
            "annotations[1] (id 42): Expected `float`",
        ),
        ({"image_id": 10, "category_id": 3, "bbox": [0, 0, 5], "id": 42}, "`$.bbox`; bbox is [x, y, width, height]"),
        ({"image_id": "10", "category_id": 3, "bbox": [0, 0, 5, 5], "id": 42}, "got `str` - at `$.image_id`"),
        ({"image_id": 10, "bbox": [0, 0, 5, 5], "id": 42}, "missing required field `category_id`"),
        (
            {"image_id": 10, "category_id": 3, "bbox": [0, 0, 5, 5], "area": "big", "id": "x"},
            "(id x): Expected `float`",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_annotation(write_coco, rows, expected):
    path = write_coco([[10, 3, [0, 0, 5, 5]], rows])
    message = message_of(path)
    assert message.startswith(f"{path}: annotations[1] (id ")
    assert expected in message


def test_a_wrong_type_far_into_the_file_keeps_its_index(write_coco):
    rows = [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 5, 5]}] * 5000
    assert "annotations[5000] (id 8): Expected `int`" in message_of(write_coco([*rows, {"id": 8, "image_id": None}]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty (0 bytes)"),
        ('{"images": [{"id": 1', "not valid JSON"),
        ("[]", "expected COCO JSON: an object with the lists"),
        ('{"images": []}', "missing required field `categories`"),
        ('{"images": [], "categories": []}', "the list 'images' is empty"),
        ('{"images": [{"id": 1, "file_name": "a", "width": 5, "height": "5"}], "categories": []}', "images[0] (id 1)"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(tmp_path, text, expected):
    path = tmp_path / "a.json"
    path.write_text(text)
    message = message_of(str(path))
    assert message.startswith(str(path))
    assert expected in message


def test_duplicate_ids_and_images_without_a_size_are_refused(write_coco):
    image = {"id": 1, "file_name": "a", "width": 5, "height": 5}
    assert "1 image ids are given more than once, such as 1 (2 times)" in message_of(write_coco(images=[image, image]))
    category = {"id": 2, "name": "x"}
    assert "1 category ids are given more than once" in message_of(write_coco(categories=[category, category]))
    assert "image id 1: width 0, height 5" in message_of(write_coco(images=[{**image, "width": 0}]))


def test_real_coco_annotations(shared_datasets):
    path = shared_datasets / "coco_val2014_100" / "instances_val2014_100.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    rows = {row["id"]: row for row in json.loads(path.read_text())["annotations"]}
    store = read_annotations(str(path))
    truth = store.ground_truth()
    assert (len(store), len(truth.boxes), truth.iscrowd.sum(), len(store.categories)) == (100, 839, 9, 80)
    for index, annotation_id in enumerate(store.annotation_ids.tolist()):
        row = rows[annotation_id]
        x, y, w, h = row["bbox"]
        assert truth.image_ids[truth.image_index[index]] == row["image_id"]
        assert store.categories[truth.classes[index]].id == row["category_id"]
        np.testing.assert_allclose(truth.boxes[index], [x, y, x + w, y + h], rtol=0, atol=1e-9)
        assert truth.areas[index] == row["area"]
        assert store.segmentation(index) == row["segmentation"]
