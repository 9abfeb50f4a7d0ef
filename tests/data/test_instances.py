"""Masks and keypoints through transforms into batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.coco import CocoDataset
from frcnn.data.collate import pack
from frcnn.data.geometry import crop
from frcnn.data.loader import TrainLoader
from frcnn.data.masks import BitmapMask, PolygonMask
from frcnn.data.roles import Sample
from frcnn.data.shapes import draw_image, make_shapes
from frcnn.data.transforms import (
    ColorJitter,
    FixedSizeCrop,
    RandomCrop,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    ScaleJitter,
)

TRANSFORMS = [
    ResizeShortestEdge(sizes=[40, 60, 90], max_size=150),
    RandomHorizontalFlip(probability=1.0),
    RandomCrop(size=(0.4, 0.6), mode="relative_range"),
    ScaleJitter(target_size=(80, 80), min_scale=0.4, max_scale=2.0),
    FixedSizeCrop(size=(64, 64), pad_value=(0, 0, 0)),
    ColorJitter(brightness=0.1),
]


def sample_of(polygon, height=80, width=100, bitmap=False):
    """A black image with one white polygon, its mask, its box, and its first point as a keypoint."""
    mask = PolygonMask((polygon,))
    raster = mask.raster(height, width)
    x1, y1, x2, y2 = raster.window
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255 * raster.pixels[..., None]
    box = np.array([[*polygon.min(axis=0), *polygon.max(axis=0)]], np.float32)
    points = np.array([[[*polygon[0], 2]]], np.float32)
    masks = [BitmapMask.of(image[..., 0] // 255)] if bitmap else [mask]
    return Sample(image, box, np.zeros(1, np.int64), 7, (height, width), masks, points, np.array([0]))


@st.composite
def triangles(draw):
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4])
    middle, radius = rng.uniform((25, 25), (75, 55)), rng.uniform(12, 24)
    return middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("bitmap", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
@given(polygon=triangles(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_masks_follow_pixels_and_boxes_follow_masks(transform, bitmap, polygon, seed):
    result = transform(sample_of(polygon, bitmap=bitmap), np.random.default_rng(seed), lambda n: [])
    height, width = result.image.shape[:2]
    seen = result.image[..., 0] > 100
    if not len(result.boxes):
        assert len(result.masks) == len(result.keypoints) == 0
        assert seen.sum() <= 4
        return
    raster = result.masks[0].raster(height, width)
    x1, y1, x2, y2 = raster.window
    found = np.zeros((height, width), bool)
    found[y1:y2, x1:x2] = raster.pixels
    # Half a pixel along the outline may differ: the image is interpolated, the mask is not.
    outline = 4 * (height + width) if seen.sum() > 2000 else 2 * math.sqrt(seen.sum()) + 12
    assert (found != seen).sum() <= 1.5 * outline
    bounds = result.masks[0].bounds(height, width)
    np.testing.assert_allclose(result.boxes[0], bounds, atol=2.5 if bitmap else 1e-3)
    x, y, visibility = result.keypoints[0, 0]
    if visibility:
        np.testing.assert_allclose([x, y], result.masks[0].polygons[0][0] if not bitmap else [x, y], atol=1e-3)
        assert 0 <= x <= width and 0 <= y <= height


def test_a_cut_object_gets_the_box_of_what_is_left_of_its_mask():
    triangle = np.array([[10.0, 10], [50, 10], [10, 50]])
    sample = sample_of(triangle)
    # Left of x = 40 and below y = 20: the long side goes from (40, 20) to (20, 40) and on.
    result = crop(sample, 20, 20, 60, 60)
    assert result.boxes.tolist() == [[0, 0, 20, 20]]
    without = crop(Sample(sample.image, sample.boxes, sample.classes, 7, (80, 100)), 20, 20, 60, 60)
    assert without.boxes.tolist() == [[0, 0, 30, 30]]
    # The box reaches into this window, the object does not.
    assert len(crop(sample, 40, 40, 20, 20).boxes) == 0


def test_a_batch_holds_masks_cut_to_windows():
    first = sample_of(np.array([[2.0, 3], [6, 3], [6, 8], [2, 8]]))
    nothing = Sample(
        first.image, first.boxes[:0], first.classes[:0], 8, (80, 100), [], first.keypoints[:0], np.array([0])
    )
    second = sample_of(np.array([[90.0, 70], [100, 70], [100, 80], [90, 80]]))
    batch = pack([first, nothing, second], with_targets=True).unpack()
    masks = [target.masks for target in batch.targets]
    assert [m.windows.tolist() for m in masks] == [[[1, 2, 7, 9]], [], [[89, 69, 100, 80]]]
    assert [len(m.pixels) for m in masks] == [42, 0, 121]
    assert [int(m.pixels.sum()) for m in masks] == [20, 0, 100]
    assert masks[0].pixels.view(7, 6)[1].tolist() == [0, 1, 1, 1, 1, 0]
    assert (masks[1].windows.shape, masks[1].windows.dtype, masks[1].pixels.dtype) == ((0, 4), torch.int64, torch.uint8)
    assert [tuple(target.keypoints.shape) for target in batch.targets] == [(1, 1, 3), (0, 1, 3), (1, 1, 3)]
    assert pack([first], with_targets=False).mask_pixels is None
    empty = pack([nothing], with_targets=True).unpack()
    assert len(empty.targets[0].masks) == 0


def test_samples_without_masks_make_a_batch_without():
    whole = sample_of(np.array([[2.0, 3], [6, 3], [6, 8], [2, 8]]))
    plain = Sample(whole.image, whole.boxes, whole.classes, 7, (80, 100))
    packed = pack([plain], with_targets=True)
    assert packed.mask_pixels is None
    target = packed.unpack().targets[0]
    assert target.masks is target.keypoints is None
    mixed = pack([plain, whole], with_targets=True).unpack()
    assert mixed.targets[0].masks is None
    assert len(mixed.targets[1].masks) == 1


def test_the_shapes_can_be_learnt_with_masks_and_keypoints(tmp_path):
    make_shapes(tmp_path, num_train=12, num_test=0, image_size=64)
    dataset = CocoDataset(
        annotations=str(tmp_path / "train.json"), images=str(tmp_path / "images"), masks=True, keypoints=True
    )
    assert dataset.provides == {"masks", "keypoints"}
    transforms = [ResizeShortestEdge(sizes=[64, 96]), RandomHorizontalFlip()]
    batches = []
    for workers in (0, 1):
        loader = iter(TrainLoader(dataset, transforms, batch_size=4, seed=0, num_workers=workers))
        batches.append([next(loader) for _ in range(3)])
        loader.close()
    kinds = set()
    for one, other in zip(*batches, strict=True):
        for target, same in zip(one.targets, other.targets, strict=True):
            assert torch.equal(target.masks.pixels, same.masks.pixels)
            assert torch.equal(target.keypoints, same.keypoints)
            assert len(target.boxes) == len(target.masks.windows) == len(target.keypoints)
            kinds |= {
                (int(k), int((points[:, 2] > 0).sum()))
                for k, points in zip(target.classes, target.keypoints, strict=True)
            }
            for box, window in zip(target.boxes, target.masks.windows, strict=True):
                assert (window[:2] <= box[:2] + 1).all() and (window[2:] >= box[2:] - 1).all()
    assert kinds == {(0, 0), (1, 4), (2, 3)}  # circles have no corner


def test_outlines_of_shapes_fit_their_boxes():
    for seed in range(20):
        drawing = draw_image(64, np.random.default_rng(seed))
        for box, outline in zip(drawing.boxes, drawing.outlines, strict=True):
            np.testing.assert_allclose([*outline.min(axis=0), *outline.max(axis=0)], box)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_masks_are_pinned_for_cuda():
    packed = pack([sample_of(np.array([[2.0, 3], [6, 3], [6, 8]]))], with_targets=True).pin_memory()
    assert packed.mask_pixels.is_pinned()
