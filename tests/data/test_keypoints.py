"""Keypoints from the file to the batch: names, coordinates, mirrors, and what a person is told."""

import math

import numpy as np
import pytest

from frcnn.data.annotations import read_annotations
from frcnn.data.coco import CocoDataset
from frcnn.data.geometry import crop, flip, resize
from frcnn.data.keypoints import mirror_index
from frcnn.errors import UserError

NAMES = ["nose", "left_eye", "right_eye"]
PERSON = {"id": 3, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}
POINTS = [50, 20, 2, 45, 15, 1, 0, 0, 0]


def row(keypoints, **fields):
    return {"id": 5, "image_id": 10, "category_id": 3, "bbox": [40, 10, 20, 20], "keypoints": keypoints, **fields}


def write(write_coco, *rows, categories=(PERSON,)):
    return write_coco(rows, categories=list(categories))


def test_a_file_counts_pixels_and_a_skeleton_from_one(write_coco):
    nothing = row(None, id=6)
    store = read_annotations(write(write_coco, row(POINTS), nothing, row([], id=7)), keypoints=True)
    assert store.categories[0].keypoints == tuple(NAMES)
    assert store.categories[0].skeleton == ((0, 1), (0, 2))
    truth = store.ground_truth()
    assert truth.keypoints.dtype == np.float64
    assert truth.keypoints.tolist() == [[[50.5, 20.5, 2], [45.5, 15.5, 1], [0, 0, 0]], *[[[0, 0, 0]] * 3] * 2]
    assert store.keypoints(0).dtype == np.float32
    assert store.keypoints(0).shape == (3, 3, 3)
    assert store.keypoints(1).shape == (0, 3, 3)


def test_keypoints_that_nobody_asked_for_are_not_read(write_coco):
    store = read_annotations(write(write_coco, row([1, 2])))
    assert store.ground_truth().keypoints is None
    assert "keypoints" not in store.columns


def test_keypoints_outside_the_image_are_not_labelled(write_coco):
    store = read_annotations(write(write_coco, row([99, 79, 2, 100, 20, 2, -1, 5, 1])), keypoints=True)
    assert store.keypoints(0)[0].tolist() == [[99.5, 79.5, 2], [0, 0, 0], [0, 0, 0]]


def few_keypoints(write_coco):
    """Image 10 has 2 + 1 labelled keypoints and a crowd's 2; image 20 has 1, another on an annotation that is skipped."""
    one = [50, 20, 1, *[0] * 6]
    crowd = row(POINTS, id=7, iscrowd=1)
    wrong = row(one, id=9, image_id=20, bbox=[0, 0, 0, 0])
    return write(write_coco, row(POINTS), row(one, id=6), crowd, row(one, id=8, image_id=20), wrong)


@pytest.mark.parametrize(("at_least", "kept"), [(0, [10, 20]), (1, [10, 20]), (2, [10]), (3, [10])])
def test_images_with_few_keypoints_are_left_out(write_coco, at_least, kept):
    path = few_keypoints(write_coco)
    store = read_annotations(path, keypoints=True, on_bad_annotation="skip", min_keypoints=at_least)
    assert store.image_ids.tolist() == kept
    note = f"dropped {2 - len(kept)} with fewer than {at_least} labelled keypoints"
    assert (note in store.notes[0]) == (at_least > 0)


def test_more_keypoints_than_any_image_has_leave_nothing(write_coco, image_folder):
    options = {"images": image_folder, "keypoints": True, "on_bad_annotation": "skip"}
    dataset = CocoDataset(annotations=few_keypoints(write_coco), min_keypoints_per_image=4, **options)
    with pytest.raises(UserError, match="min_keypoints_per_image: 4 leaves none of the 2 images: none has so many"):
        dataset.load()


def test_counting_keypoints_needs_them():
    with pytest.raises(ValueError, match="min_keypoints_per_image is 1, which needs keypoints: true"):
        CocoDataset(annotations="a.json", images="a", min_keypoints_per_image=1)
    with pytest.raises(ValueError, match="min_keypoints_per_image must be at least 0, got -1"):
        CocoDataset(annotations="a.json", images="a", keypoints=True, min_keypoints_per_image=-1)


BAD = [
    ([1, 2, 2], "1 with keypoints of a wrong number", "keypoints of 3 numbers, expected 9: x, y, visibility of 3"),
    ([*POINTS[:8], 3], "1 with an unknown visibility", "keypoint 2 has the visibility 3, expected 0 (not labelled), 1"),
    ([50, math.nan, *POINTS[2:]], "1 with NaN or infinity in the keypoints", "keypoint 0 holds NaN"),
]


@pytest.mark.parametrize(("keypoints", "cause", "value"), BAD)
def test_bad_keypoints_are_named(write_coco, keypoints, cause, value):
    path = write(write_coco, row(POINTS), row(keypoints, id=77))
    read_annotations(path)
    with pytest.raises(UserError) as caught:
        read_annotations(path, keypoints=True)
    for part in (path, cause, "annotation 77 of image 10", value, "on_bad_annotation: skip"):
        assert part in str(caught.value)
    assert len(read_annotations(path, keypoints=True, on_bad_annotation="skip").keypoints(0)) == 1


def test_categories_must_agree_on_names(write_coco):
    dog = {"id": 7, "name": "dog", "keypoints": ["tail"]}
    with pytest.raises(
        UserError, match="category person has the keypoints nose, left_eye, right_eye, and dog has tail"
    ):
        read_annotations(write(write_coco, categories=[PERSON, dog]), keypoints=True)
    with pytest.raises(UserError, match="keypoints: true asks for keypoints, but none of the 2 categories names any"):
        read_annotations(write_coco(), keypoints=True)
    table = {"id": 7, "name": "table"}
    store = read_annotations(write(write_coco, row(POINTS), categories=[PERSON, table]), keypoints=True)
    assert [category.keypoints for category in store.categories] == [tuple(NAMES), ()]


def test_a_skeleton_of_unknown_keypoints_is_refused(write_coco):
    wrong = {**PERSON, "skeleton": [[0, 1]]}
    with pytest.raises(UserError, match=r"category id 3 has 3 keypoints, and its skeleton joins \[0, 1\]; .* 1..3"):
        read_annotations(write(write_coco, categories=[wrong]))


def test_mirrors_exchange_left_and_right_by_name():
    assert mirror_index(["nose", "left_eye", "right_eye", "tail", "left_only"]).tolist() == [0, 2, 1, 3, 4]
    assert mirror_index(["foot_right", "foot_left"]).tolist() == [1, 0]


def test_keypoints_follow_every_transform_by_hand(write_coco, image_folder):
    dataset = CocoDataset(annotations=write(write_coco, row(POINTS)), images=image_folder, keypoints=True)
    sample = dataset[0]
    assert sample.keypoints.tolist() == [[[50.5, 20.5, 2], [45.5, 15.5, 1], [0, 0, 0]]]
    # 100 wide: the nose goes to 49.5, and the left eye becomes the right one.
    mirrored = flip(sample)
    assert mirrored.keypoints.tolist() == [[[49.5, 20.5, 2], [0, 0, 0], [54.5, 15.5, 1]]]
    np.testing.assert_array_equal(flip(mirrored).keypoints, sample.keypoints)
    assert resize(sample, (160, 300)).keypoints.tolist() == [[[151.5, 41, 2], [136.5, 31, 1], [0, 0, 0]]]
    window = crop(sample, 46, 10, 30, 30)
    assert window.keypoints.tolist() == [[[4.5, 10.5, 2], [0, 0, 0], [0, 0, 0]]]
    assert crop(sample, 80, 40, 10, 10).keypoints.shape == (0, 3, 3)
    assert dataset[1].keypoints.shape == (0, 3, 3)
