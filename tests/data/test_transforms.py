"""Boxes follow the pixels, whatever the transform; sizes are those of the frameworks they come from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.geometry import crop, resize, shortest_edge_size
from frcnn.data.roles import TRANSFORMS, Sample
from frcnn.data.transforms import (
    ColorJitter,
    FixedSizeCrop,
    RandomCrop,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    ScaleJitter,
)


def sample_of(height, width, boxes=(), image=None):
    """An image that is black but for its white boxes."""
    if image is None:
        image = np.zeros((height, width, 3), np.uint8)
        for x1, y1, x2, y2 in boxes:
            image[y1:y2, x1:x2] = 255
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(image, array, np.arange(len(array)), 7, (height, width))


def others(n):
    raise AssertionError("these transforms need one image only")


def apply(transform, sample, seed=0):
    return transform(sample, np.random.default_rng(seed), others)


def white_bounds(image):
    rows, columns = np.nonzero(image[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def check_box_follows_pixels(result):
    """The one box bounds the white pixels within a pixel; without a box there are next to no white pixels."""
    assert result.boxes.dtype == np.float32
    assert result.image.dtype == np.uint8
    assert result.image.flags.c_contiguous
    height, width = result.image.shape[:2]
    if len(result.boxes):
        x1, y1, x2, y2 = result.boxes[0]
        assert 0 <= x1 < x2 <= width + 1e-3
        assert 0 <= y1 < y2 <= height + 1e-3
        if min(x2 - x1, y2 - y1) >= 2:
            np.testing.assert_allclose(white_bounds(result.image), result.boxes[0], atol=1.01)
    else:
        assert not (result.image[..., 0] > 127).any()


@st.composite
def samples(draw):
    height, width = draw(st.integers(40, 120)), draw(st.integers(40, 120))
    x1, y1 = draw(st.integers(0, width - 20)), draw(st.integers(0, height - 20))
    x2, y2 = draw(st.integers(x1 + 8, width)), draw(st.integers(y1 + 8, height))
    return sample_of(height, width, [(x1, y1, x2, y2)])


TRANSFORMS_TO_TRY = [
    ResizeShortestEdge(sizes=[30, 60, 90], max_size=150),
    ResizeShortestEdge(sizes=[25, 100], sampling="range", rounding="floor"),
    RandomHorizontalFlip(probability=0.5),
    RandomCrop(size=(30, 50), mode="absolute"),
    RandomCrop(size=(0.5, 0.7), mode="relative"),
    RandomCrop(size=(0.3, 0.3), mode="relative_range"),
    ScaleJitter(target_size=(80, 80), min_scale=0.5, max_scale=2.0),
    FixedSizeCrop(size=(64, 64), pad_value=(0, 0, 0)),
    FixedSizeCrop(size=(64, 64), pad=False),
]


@pytest.mark.parametrize("transform", TRANSFORMS_TO_TRY, ids=lambda transform: type(transform).__name__)
@given(sample=samples(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_boxes_follow_pixels(transform, sample, seed):
    before = sample.image.copy(), sample.boxes.copy()
    result = apply(transform, sample, seed)
    check_box_follows_pixels(result)
    np.testing.assert_array_equal(sample.image, before[0])
    np.testing.assert_array_equal(sample.boxes, before[1])
    assert (result.image_id, result.original_size) == (7, sample.original_size)
    again = apply(transform, sample, seed)
    np.testing.assert_array_equal(again.image, result.image)
    np.testing.assert_array_equal(again.boxes, result.boxes)


@given(sample=samples(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_large_scale_jitter_follows_pixels(sample, seed):
    scaled = apply(ScaleJitter(target_size=(96, 96), min_scale=0.4, max_scale=2.0), sample, seed)
    result = apply(FixedSizeCrop(size=(96, 96), pad_value=(0, 0, 0)), scaled, seed)
    assert result.image.shape == (96, 96, 3)
    check_box_follows_pixels(result)


@pytest.mark.parametrize("transform", TRANSFORMS_TO_TRY, ids=lambda transform: type(transform).__name__)
def test_an_image_without_objects_is_normal(transform):
    result = apply(transform, sample_of(50, 70))
    assert result.boxes.shape == (0, 4)
    assert result.classes.shape == (0,)


def test_resized_sizes_are_those_of_the_two_frameworks():
    assert shortest_edge_size(480, 640, 800, 1333, "half_up") == (800, 1067)  # detectron2
    assert shortest_edge_size(480, 640, 800, 1333, "floor") == (800, 1066)  # torchvision
    assert shortest_edge_size(640, 480, 800, 1333, "half_up") == (1067, 800)
    assert shortest_edge_size(300, 1000, 800, 1333, "half_up") == (400, 1333)
    assert shortest_edge_size(1, 1000, 800, 1333, "half_up") == (1, 1333)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), size=st.sampled_from([320, 640, 672, 800]))
@settings(max_examples=300, deadline=None)
def test_floor_is_the_size_torchvision_gives(height, width, size):
    scale = min(size / min(height, width), 1333 / max(height, width))
    expected = tuple(math.floor(float(side) * scale) for side in (height, width))
    if min(expected) == 0:
        return
    assert shortest_edge_size(height, width, size, 1333, "floor") == expected


def test_floor_agrees_with_interpolate():
    image = torch.zeros(1, 1, 427, 640)
    scale = min(800 / 427, 1333 / 640)
    output = torch.nn.functional.interpolate(image, scale_factor=scale, mode="bilinear", recompute_scale_factor=True)
    assert shortest_edge_size(427, 640, 800, 1333, "floor") == tuple(output.shape[-2:])


def test_resize_scales_boxes_by_hand():
    result = apply(ResizeShortestEdge(sizes=[40]), sample_of(20, 30, [(3, 5, 10, 20)]))
    assert result.image.shape == (40, 60, 3)
    assert result.boxes.tolist() == [[6, 10, 20, 40]]


def test_sizes_are_all_drawn():
    choice = ResizeShortestEdge(sizes=[20, 30])
    assert {apply(choice, sample_of(40, 40), seed).image.shape[0] for seed in range(30)} == {20, 30}
    between = ResizeShortestEdge(sizes=[20, 23], sampling="range")
    assert {apply(between, sample_of(40, 40), seed).image.shape[0] for seed in range(60)} == {20, 21, 22, 23}


def test_a_box_that_loses_its_width_is_dropped_and_a_pixel_is_not():
    assert len(resize(sample_of(2000, 2000, [(5, 5, 6, 6)]), (20, 20)).boxes) == 1
    # Below 2, float32 numbers are half as far apart as above it: at 1.1 times the size many become one number.
    left = np.linspace(1.83, 1.99, 40, dtype=np.float32)
    thin = np.stack([left, np.zeros(40), np.nextafter(left, np.float32(2)), np.ones(40)], axis=1).astype(np.float32)
    sample = Sample(np.zeros((20, 20, 3), np.uint8), thin, np.arange(40), 7, (20, 20))
    result = resize(sample, (22, 22))
    assert 0 < len(result.boxes) < 40
    assert len(result.classes) == len(result.boxes)
    assert (result.boxes[:, 2] > result.boxes[:, 0]).all()


def test_flip_by_hand():
    sample = sample_of(10, 30, [(0, 1, 4, 9), (20, 2, 30, 3)])
    flipped = apply(RandomHorizontalFlip(probability=1.0), sample)
    assert flipped.boxes.tolist() == [[26, 1, 30, 9], [0, 2, 10, 3]]
    twice = apply(RandomHorizontalFlip(probability=1.0), flipped)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(twice.boxes, sample.boxes)
    assert apply(RandomHorizontalFlip(probability=0.0), sample) is sample
    flips = [apply(RandomHorizontalFlip(), sample, seed) is not sample for seed in range(400)]
    assert 160 < sum(flips) < 240


def test_crop_clips_and_drops_by_hand():
    sample = sample_of(20, 20, [(0, 0, 10, 10), (4, 4, 8, 8), (18, 0, 20, 20)])
    result = crop(sample, 5, 5, 10, 10)
    assert result.boxes.tolist() == [[0, 0, 5, 5], [0, 0, 3, 3]]
    assert result.classes.tolist() == [0, 1]
    # Of the first box 25 of 100 square pixels are left, of the second 9 of 16.
    assert crop(sample, 5, 5, 10, 10, min_area_left=0.25).classes.tolist() == [1]


def test_a_crop_is_never_larger_than_the_image():
    assert apply(RandomCrop(size=(500, 10), mode="absolute"), sample_of(20, 30)).image.shape == (20, 10, 3)
    assert apply(RandomCrop(size=(1.0, 1.0), mode="relative"), sample_of(20, 30)).image.shape == (20, 30, 3)


def test_fixed_size_crop_pads_right_and_below():
    image = np.full((10, 30, 3), 9, np.uint8)
    result = apply(FixedSizeCrop(size=(20, 20), pad_value=(1, 2, 3)), sample_of(10, 30, image=image))
    assert (result.image[:10] == 9).all()
    assert (result.image[10:] == (1, 2, 3)).all()


def test_color_jitter_by_hand():
    image = np.full((2, 2, 3), 100, np.uint8)
    image[0, 0] = (200, 100, 0)

    class Fixed:
        def __init__(self, *factors):
            self.factors = np.array(factors)

        def uniform(self, low, high):
            return self.factors

    sample = sample_of(2, 2, image=image)
    jitter = ColorJitter(brightness=1, contrast=1, saturation=1)

    def result(*factors):
        return jitter(sample, Fixed(*factors), others).image

    np.testing.assert_array_equal(result(1, 1, 1), image)
    assert result(0.5, 1, 1)[0].tolist() == [[100, 50, 0], [50, 50, 50]]
    assert result(2, 1, 1)[0].tolist() == [[255, 200, 0], [200, 200, 200]]
    # Grey of (200, 100, 0) is 0.299 * 200 + 0.587 * 100 = 118.5; without saturation every channel is that.
    assert set(result(1, 1, 0)[0, 0].tolist()) <= {118, 119}
    # The mean grey is (118.5 + 3 * 100) / 4 = 104.6; without contrast every pixel is that.
    assert np.unique(result(1, 0, 1)).tolist() == [105]


def test_color_jitter_leaves_boxes_and_draws_within_bounds():
    sample = sample_of(8, 8, image=np.full((8, 8, 3), 100, np.uint8))
    values = [int(apply(ColorJitter(brightness=0.2), sample, seed).image[0, 0, 0]) for seed in range(200)]
    assert 80 <= min(values) < 85
    assert 115 < max(values) <= 120
    np.testing.assert_array_equal(apply(ColorJitter(), sample).image, sample.image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResizeShortestEdge(sizes=[]), "sizes must be one or more lengths"),
        (
            lambda: ResizeShortestEdge(sizes=[3, 2, 1], sampling="range"),
            r"needs sizes of the form \[shortest, longest\]",
        ),
        (lambda: ResizeShortestEdge(sizes=[3], max_size=0), "max_size must be at least 1 pixel, got 0"),
        (lambda: RandomHorizontalFlip(probability=50), r"probability must be in \[0, 1\], got 50"),
        (lambda: RandomCrop(size=(2, 0.5), mode="relative"), r"size must be in \(0, 1\] with mode: relative"),
        (lambda: RandomCrop(size=(0, 5), mode="absolute"), "size must be above 0 pixels with mode: absolute"),
        (lambda: ScaleJitter(min_scale=0), "expected 0 < min_scale <= max_scale, got 0 and 2.0"),
        (lambda: FixedSizeCrop(size=(5, 5), pad_value=(0, 0, 300)), r"pad_value must be in 0..255, got \[0, 0, 300\]"),
        (lambda: ColorJitter(contrast=-1), "contrast must be 0 or more, got -1"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_transforms_are_registered():
    names = {"ResizeShortestEdge", "RandomHorizontalFlip", "RandomCrop", "ScaleJitter", "FixedSizeCrop", "ColorJitter"}
    assert names <= set(TRANSFORMS.components)
