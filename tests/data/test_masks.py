"""Masks before they are pixels: moved exactly, and rasterised by COCO's rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from frcnn.data.masks import BitmapMask, PolygonMask

SQUARE = np.array([[2.0, 3], [6, 3], [6, 8], [2, 8]])


def whole(raster, height, width):
    """[height, width]: the mask in its image."""
    image = np.zeros((height, width), np.uint8)
    x1, y1, x2, y2 = raster.window
    image[y1:y2, x1:x2] = raster.pixels
    return image


def by_pycocotools(polygons, height, width):
    flat = [polygon.ravel().tolist() for polygon in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))


def test_a_square_by_hand_with_a_margin_of_one_pixel_inside_the_image():
    raster = PolygonMask((SQUARE,)).raster(10, 20)
    assert raster.window == (1, 2, 7, 9)
    assert raster.pixels.tolist() == [[0] * 6, *[[0, 1, 1, 1, 1, 0]] * 5, [0] * 6]
    assert PolygonMask((SQUARE - [2, 3],)).raster(5, 20).window == (0, 0, 5, 5)


def test_polygons_of_one_object_are_united():
    parts = (SQUARE, SQUARE + np.array([10, 0]))
    raster = PolygonMask(parts).raster(10, 20)
    assert raster.pixels.sum() == 40
    assert raster.window == (1, 2, 17, 9)


@given(seed=st.integers(0, 10_000), decimals=st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_pixels_are_those_of_pycocotools(seed, decimals):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(5, 300, 2).tolist()
    polygon = rng.uniform(-20, (width + 20, height + 20), (int(rng.integers(3, 12)), 2)).round(decimals)
    expected = by_pycocotools([polygon], height, width)
    if expected.any():
        found = whole(PolygonMask((polygon,)).raster(height, width), height, width)
        # The points of an edge are interpolated from another origin, and may round another way once in a thousand masks.
        assert (found != expected).sum() <= 2


def test_a_mask_of_less_than_a_pixel_gets_the_pixel_it_lies_in():
    tiny = np.array([[5.2, 7.3], [5.4, 7.3], [5.4, 7.5]])
    assert by_pycocotools([tiny], 10, 10).sum() == 0
    found = whole(PolygonMask((tiny,)).raster(10, 10), 10, 10)
    assert found.sum() == 1
    assert found[7, 5] == 1
    dot = BitmapMask(np.ones((40, 40), np.uint8), (5.2, 7.3, 5.4, 7.5))
    assert whole(dot.raster(10, 10), 10, 10)[7, 5] == 1


def test_a_mask_outside_the_image_is_one_empty_pixel():
    for mask in (PolygonMask((SQUARE + 100,)), BitmapMask(np.ones((2, 2), np.uint8), (100.0, 100.0, 102.0, 102.0))):
        raster = mask.raster(10, 10)
        assert raster.pixels.tolist() == [[0]]
        assert mask.bounds(10, 10) is None


def test_bounds_are_those_of_the_part_inside():
    triangle = PolygonMask((np.array([[0.0, 0], [10, 0], [0, 10]]),))
    assert triangle.bounds(20, 20) == (0, 0, 10, 10)
    # Seen from (4, 4): the edge from (10, 0) to (0, 10) cuts the corner at (6, 0) - (4, 4) and (0, 6) - (4, 4).
    assert triangle.moved((1, 1), (-4, -4)).bounds(20, 20) == (0, 0, 2, 2)
    # The image lies in the middle of the object: no point of the polygon is in it, but its corners are in the polygon.
    assert PolygonMask((SQUARE * 100,)).moved((1, 1), (-300, -500)).bounds(7, 9) == (0, 0, 9, 7)
    # Two teeth reach in at the left; the box ends where the lower one does, at y = 4, although their root goes on to 20.
    teeth = np.array([[-5.0, 0], [2, 1], [-1, 2], [3, 3], [-1, 4], [-5, 20]])
    assert PolygonMask((teeth,)).bounds(30, 30) == pytest.approx((0, 5 / 7, 3, 3.75))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_bounds_are_tight(seed):
    rng = np.random.default_rng(seed)
    center, angles = rng.uniform(0, 60, 2), np.sort(rng.uniform(0, 2 * np.pi, 8))
    polygon = center + rng.uniform(10, 40, (8, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    bounds = PolygonMask((polygon,)).bounds(50, 60)
    rows, columns = np.nonzero(by_pycocotools([polygon * 8], 400, 480))
    if bounds is None or not len(rows):
        assert len(rows) < 40
        return
    # At eight times the size, the pixels of a sharp tip may be missing.
    pixels = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 8
    assert (np.array(bounds[:2]) <= pixels[:2] + 0.2).all()
    assert (np.array(bounds[2:]) >= pixels[2:] - 0.2).all()
    inside = polygon[((polygon >= 0) & (polygon <= [60, 50])).all(axis=1)]
    assert (inside >= np.array(bounds[:2]) - 1e-9).all() and (inside <= np.array(bounds[2:]) + 1e-9).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_bitmap_that_is_only_mirrored_and_moved_by_whole_pixels_stays_as_it_is(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((20, 30), np.uint8)
    image[4:15, 3:25] = rng.random((11, 22)) < 0.5
    mask = BitmapMask.of(image)
    np.testing.assert_array_equal(whole(mask.raster(20, 30), 20, 30), image)
    np.testing.assert_array_equal(whole(mask.moved((-1, 1), (30, 0)).raster(20, 30), 20, 30), image[:, ::-1])
    cropped = mask.moved((1, 1), (-7, -5))
    np.testing.assert_array_equal(whole(cropped.raster(8, 10), 8, 10), image[5:13, 7:17])
    rows, columns = np.nonzero(image[5:13, 7:17])
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None
    assert cropped.bounds(8, 10) == (None if expected is None else pytest.approx(expected))


def test_a_bitmap_is_scaled_once_however_many_steps_there_are():
    image = np.zeros((40, 60), np.uint8)
    image[10:30, 20:50] = 1
    twice = BitmapMask.of(image).moved((2, 2), (0, 0))
    assert twice.box == (40, 20, 100, 60)
    assert whole(twice.raster(80, 120), 80, 120).sum() == 40 * 60
    back = twice.moved((0.1, 0.1), (0, 0)).moved((5, 5), (0, 0))
    np.testing.assert_array_equal(whole(back.raster(40, 60), 40, 60), image)
    half = twice.moved((0.25, 0.25), (0, 0)).raster(20, 30)
    assert half.window == (9, 4, 26, 16)
    assert half.pixels.sum() == 15 * 10


def test_polygon_and_bitmap_agree_on_a_circle():
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = PolygonMask((np.stack([50 + 30 * np.cos(angles), 40 + 30 * np.sin(angles)], axis=1),))
    bitmap = BitmapMask.of(whole(circle.raster(80, 100), 80, 100))
    for scale, shift in (((0.6, 0.6), (0, 0)), ((1.7, 1.4), (-12.5, -3.25)), ((-1.3, 1.3), (130, 0))):
        rasters = [whole(mask.moved(scale, shift).raster(110, 150), 110, 150) for mask in (circle, bitmap)]
        overlap = (rasters[0] & rasters[1]).sum() / (rasters[0] | rasters[1]).sum()
        assert overlap > 0.95
        bounds = [mask.moved(scale, shift).bounds(110, 150) for mask in (circle, bitmap)]
        np.testing.assert_allclose(*bounds, atol=1)


def test_an_empty_bitmap_is_normal():
    mask = BitmapMask.of(np.zeros((5, 5), np.uint8)).moved((-2, 2), (10, 0))
    assert mask.bounds(5, 5) is None
    assert mask.raster(5, 5).pixels.sum() == 0
