"""Segmentations of a COCO file: every form of it, and what a person is told of one that cannot be learnt."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from frcnn.data.annotations import read_annotations
from frcnn.data.coco import CocoDataset
from frcnn.data.segmentations import run_lengths
from frcnn.errors import UserError

SQUARE = [[10, 10, 20, 10, 20, 30, 10, 30]]


def row(segmentation, image=10, **fields):
    return {
        "id": 5,
        "image_id": image,
        "category_id": 3,
        "bbox": [10, 10, 10, 20],
        "segmentation": segmentation,
        **fields,
    }


def masks_of(path, image=0):
    return read_annotations(path, masks=True).masks(image)


def test_polygons_and_both_kinds_of_rle_are_the_same_mask(write_coco):
    expected = np.zeros((80, 100), np.uint8)
    expected[10:30, 10:20] = 1
    compressed = coco_mask.encode(np.asfortranarray(expected))["counts"].decode()
    counts = [10 * 80 + 10, *[20, 60] * 9, 20, 80 * 80 + 50]
    forms = [SQUARE, {"size": [80, 100], "counts": counts}, {"size": [80, 100], "counts": compressed}]
    for mask in masks_of(write_coco([row(form) for form in forms])):
        raster = mask.raster(80, 100)
        assert raster.window == (9, 9, 21, 31)
        np.testing.assert_array_equal(raster.pixels, expected[9:31, 9:21])
        assert mask.bounds(80, 100) == (10, 10, 20, 30)


def test_masks_are_in_the_order_of_the_boxes_without_crowds(write_coco):
    crowd = row({"size": [80, 100], "counts": [8000]}, image=20, iscrowd=1)
    other = row([[50, 5, 60, 5, 60, 9]], image=20, bbox=[50, 5, 10, 4])
    path = write_coco([row(SQUARE, image=20), crowd, other, row(SQUARE)])
    store = read_annotations(path, masks=True)
    assert len(store.masks(0)) == 1
    boxes = [[10, 10, 20, 30], [50, 5, 60, 9]]
    assert [list(mask.bounds(80, 100)) for mask in store.masks(1)] == store.targets(1)[0].tolist() == boxes


def test_ground_truth_gives_what_the_file_has(write_coco):
    rle = {"size": [80, 100], "counts": "abc"}
    truth = read_annotations(write_coco([row(SQUARE), row(rle, image=20)])).ground_truth()
    assert [truth.segmentation(i) for i in range(2)] == [SQUARE, rle]
    for nothing in ([], None):
        assert read_annotations(write_coco([row(nothing)])).ground_truth().segmentation is None
    assert read_annotations(write_coco([[10, 3, [0, 0, 5, 5]]])).ground_truth().segmentation is None


BAD = [
    ([[1, 2, 3, 4]], "polygon [1.0, 2.0, 3.0, 4.0], expected at least 3 points"),
    ([[1, 2, 3, 4, 5, 6, 7]], "of 7 numbers, expected x and y of each point"),
    ([[]], "polygon [], expected at least 3 points"),
    ([[1, 2, 3, 4, 5, math.nan]], "segmentation [[1, 2, 3, 4, 5, None]], expected polygons (lists of finite numbers)"),
    ([[1, 2, 3, 4, 5, "6"]], "expected polygons (lists of finite numbers) or RLE"),
    ({"size": [100, 80], "counts": "a"}, "RLE of size [100, 80], expected the image's [height, width], [80, 100]"),
    ({"size": [80, 100], "counts": [5, 6]}, "RLE of 11 pixels in 2 runs, expected 80 x 100 = 8000 pixels"),
    ({"size": [80, 100], "counts": [9000, -1000]}, "expected 80 x 100 = 8000 pixels"),
    ({"counts": [5, 6]}, "expected polygons (lists of finite numbers) or RLE (size and counts)"),
]


@pytest.mark.parametrize(("segmentation", "value"), BAD)
def test_a_segmentation_that_is_no_mask_is_named(write_coco, segmentation, value):
    path = write_coco([row(SQUARE), row(segmentation, id=77)])
    read_annotations(path)
    with pytest.raises(UserError) as caught:
        read_annotations(path, masks=True)
    message = str(caught.value)
    for part in (
        path,
        "1 with a segmentation that is no mask",
        "annotation 77 of image 10",
        value,
        "on_bad_annotation: skip",
    ):
        assert part in message
    assert "\n" not in message
    assert len(read_annotations(path, masks=True, on_bad_annotation="skip").masks(0)) == 1


def test_an_object_without_a_segmentation_among_others_is_named(write_coco):
    path = write_coco([row(SQUARE), [10, 3, [0, 0, 5, 5]], row(None, id=8)])
    with pytest.raises(UserError, match=r"2 without a segmentation .*annotation 101 of image 10: no 'segmentation'"):
        read_annotations(path, masks=True)


def test_a_file_without_any_segmentation_is_one_line(write_coco, image_folder):
    path = write_coco([[10, 3, [0, 0, 5, 5]], [20, 3, [0, 0, 5, 5]]])
    with pytest.raises(UserError) as caught:
        CocoDataset(annotations=path, images=image_folder, masks=True).load()
    assert str(caught.value).startswith(f"{path}: masks: true asks for masks, but none of the 2 objects has")
    assert "set masks: false" in str(caught.value)
    assert masks_of(write_coco([])) == []


def test_a_nan_elsewhere_in_the_annotation_does_not_matter(write_coco):
    assert masks_of(write_coco([row(SQUARE, area=math.nan)]))[0].bounds(80, 100) == (10, 10, 20, 30)


def test_a_damaged_string_is_named_when_it_is_decoded(write_coco):
    store = read_annotations(write_coco([row({"size": [80, 100], "counts": "52"}, id=9)]), masks=True)
    with pytest.raises(UserError, match="annotation 9 of image 10: RLE of 7 pixels in 2 runs, expected 80 x 100"):
        store.masks(0)


@given(runs=st.lists(st.integers(0, 100_000), min_size=1, max_size=40))
def test_run_lengths_are_read_as_coco_writes_them(runs):
    size = [sum(runs), 1]
    compressed = coco_mask.frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode()
    assert run_lengths(compressed) == runs


def test_areas_of_real_masks_are_those_of_pycocotools(shared_datasets):
    path = shared_datasets / "coco_val2014_100" / "instances_val2014_100.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    rows = {row["id"]: row for row in json.loads(path.read_text())["annotations"]}
    store = read_annotations(str(path), masks=True)
    objects = 0
    for image, (height, width) in enumerate(store.image_sizes.tolist()):
        start, stop = store.columns["offsets"][image : image + 2]
        single = [i for i in range(start, stop) if not store.columns["iscrowd"][i]]
        for i, mask in zip(single, store.masks(image), strict=True):
            polygons = rows[int(store.annotation_ids[i])]["segmentation"]
            runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
            assert mask.raster(height, width).pixels.sum() == coco_mask.area(runs)
            x1, y1, x2, y2 = store.columns["boxes"][i]
            np.testing.assert_allclose(mask.bounds(height, width), (x1, y1, x2, y2), atol=1)
            objects += 1
    assert objects == 830
