"""Mosaic, mix-up and copy-paste on plain images whose objects can be found again by their colours."""

from dataclasses import replace

import numpy as np
import pytest

from frcnn.data.masks import PolygonMask
from frcnn.data.mixing import CopyPaste, MixUp, Mosaic
from frcnn.data.roles import Sample
from frcnn.errors import UserError


def square(x1, y1, x2, y2):
    return PolygonMask((np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64),))


def plain(color, box, class_index, size=(40, 40), image_id=1):
    """An image of one colour with one rectangle of colour + 100, its mask, and a keypoint at its upper left corner."""
    image = np.full((*size, 3), color, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = color + 100
    return Sample(
        image,
        np.array([box], np.float32),
        np.array([class_index]),
        image_id,
        size,
        masks=[square(*box)],
        keypoints=np.array([[[x1 + 0.5, y1 + 0.5, 2]]], np.float32),
        keypoint_mirror=np.array([0]),
    )


def giving(*samples):
    """`others` that gives these, and checks how many are asked for."""

    def others(count):
        assert count == len(samples)
        return list(samples)

    return others


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(5))
def test_mosaic_puts_four_images_around_a_point(seed):
    samples = [plain(10 * i, (12, 12, 28, 28), i) for i in range(4)]
    mixed = Mosaic(size=(60, 80), min_area_left=0.0)(samples[0], rng(seed), giving(*samples[1:]))
    assert mixed.image.shape == (60, 80, 3)
    assert mixed.image_id == 1
    corners = [mixed.image[0, 0, 0], mixed.image[0, -1, 0], mixed.image[-1, 0, 0], mixed.image[-1, -1, 0]]
    assert [int(corner) // 10 % 10 for corner in corners] == [0, 1, 2, 3]
    assert len(mixed.boxes) == len(mixed.masks) == len(mixed.keypoints)
    for box, class_index, mask in zip(mixed.boxes, mixed.classes, mixed.masks, strict=True):
        x1, y1, x2, y2 = box.round().astype(int)
        inside = mixed.image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
        assert (abs(inside.astype(int) - (100 + 10 * class_index)) <= 1).all()
        raster = mask.raster(60, 80)
        seen = np.zeros((60, 80), bool)
        seen[raster.y : raster.window[3], raster.x : raster.window[2]] = raster.pixels
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == pytest.approx(box, abs=1.01)


def test_a_mask_does_not_reach_into_the_neighbour():
    """A mask that fills its image is cut with it: the four masks tile the mosaic without overlap."""
    samples = [plain(10 * i, (0, 0, 40, 40), i) for i in range(4)]
    mixed = Mosaic(size=(60, 60))(samples[0], rng(1), giving(*samples[1:]))
    count = np.zeros((60, 60), int)
    for mask in mixed.masks:
        raster = mask.raster(60, 60)
        x1, y1, x2, y2 = raster.window
        count[y1:y2, x1:x2] += raster.pixels
    assert (count == 1).all()


def test_mix_up_keeps_the_objects_of_both_and_blends_by_the_drawn_share():
    first, second = plain(0, (5, 5, 15, 15), 0), plain(100, (20, 20, 30, 30), 1, image_id=2)
    generator = rng(3)
    mixed = MixUp(probability=1.0, alpha=1.5)(first, generator, giving(second))
    again = rng(3)
    again.random()
    share = again.beta(1.5, 1.5)
    assert mixed.classes.tolist() == [0, 1]
    assert mixed.boxes.tolist() == [[5, 5, 15, 15], [20, 20, 30, 30]]
    assert mixed.image[0, 0, 0] == pytest.approx(0 * share + 100 * (1 - share), abs=1)
    assert mixed.image[25, 25, 0] == pytest.approx(0 * share + 200 * (1 - share), abs=1)
    assert mixed.image_id == 1


def test_copy_paste_hides_what_is_below():
    """The pasted 10x10 square covers the upper left quarter of a 20x20 one: three quarters of its mask are left."""
    below, above = plain(0, (10, 10, 30, 30), 0), plain(100, (10, 10, 20, 20), 1)
    for seed in range(20):  # until the source is not mirrored
        mixed = CopyPaste(probability=1.0)(below, rng(seed), giving(above))
        if mixed.boxes[-1].tolist() == [10, 10, 20, 20]:
            break
    assert mixed.classes.tolist() == [0, 1]
    assert mixed.boxes.tolist() == [[10, 10, 30, 30], [10, 10, 20, 20]]
    assert mixed.masks[0].raster(40, 40).pixels.sum() == 300
    assert mixed.masks[1].raster(40, 40).pixels.sum() == 100
    assert mixed.image[15, 15, 0] == 200
    assert mixed.image[25, 25, 0] == 100
    assert mixed.image[5, 5, 0] == 0
    # the keypoint of the lower object, at its upper left corner, is now hidden
    assert mixed.keypoints[:, 0, 2].tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_copy_paste_draws_what_is_pasted_and_what_lies_below(monkeypatch, seed):
    """One of two objects is pasted into a corner, over one of the four objects in the corners."""

    def with_objects(*boxes):
        one = plain(0, boxes[0], 0)
        array, masks = np.array(boxes, np.float32), [square(*box) for box in boxes]
        return replace(one, boxes=array, classes=np.arange(len(boxes)), masks=masks, keypoints=None)

    drawn = []
    raster = PolygonMask.raster
    monkeypatch.setattr(PolygonMask, "raster", lambda self, *size: (drawn.append(self), raster(self, *size))[1])
    below = with_objects((2, 2, 12, 12), (28, 2, 38, 12), (2, 28, 12, 38), (28, 28, 38, 38))
    above = with_objects((0, 0, 8, 8), (32, 0, 40, 8))
    mixed = CopyPaste(probability=1.0, max_objects=1)(below, rng(seed), giving(above))
    assert len(drawn) == 2
    assert sorted(mask.raster(40, 40).pixels.sum() for mask in mixed.masks) == [64, 64, 100, 100, 100]


def test_copy_paste_drops_what_is_covered():
    below, above = plain(0, (12, 12, 18, 18), 0), plain(100, (10, 10, 30, 30), 1)
    mixed = CopyPaste(probability=1.0)(below, rng(0), giving(above))
    assert mixed.classes.tolist() == [1]


@pytest.mark.parametrize(
    "transform", [Mosaic(size=(40, 40), probability=0), MixUp(probability=0), CopyPaste(probability=0)]
)
def test_without_probability_nothing_changes(transform):
    sample = plain(0, (5, 5, 15, 15), 0)
    assert transform(sample, rng(), giving()) is sample


def test_images_without_objects_and_without_masks():
    nothing = replace(
        plain(0, (5, 5, 15, 15), 0),
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int64),
        masks=[],
        keypoints=np.zeros((0, 1, 3), np.float32),
    )
    assert len(MixUp(probability=1.0)(nothing, rng(), giving(nothing)).boxes) == 0
    assert CopyPaste(probability=1.0)(nothing, rng(), giving(nothing)).masks == []
    boxes_only = replace(plain(0, (5, 5, 15, 15), 0), masks=None, keypoints=None)
    mixed = Mosaic(size=(40, 40))(boxes_only, rng(), giving(boxes_only, boxes_only, boxes_only))
    assert mixed.masks is None and mixed.keypoints is None
    with pytest.raises(UserError, match="set masks: true in the data set"):
        CopyPaste()(boxes_only, rng(), giving())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mosaic(size=(0, 10)), "size must be at least 2 pixels"),
        (lambda: Mosaic(size=(10, 10), center_range=(0.8, 0.2)), "center_range must be two shares"),
        (lambda: MixUp(alpha=0), "alpha must be above 0, got 0"),
        (lambda: CopyPaste(max_objects=0), "max_objects must be at least 1, got 0"),
        (lambda: CopyPaste(probability=25), r"probability must be in \[0, 1\], got 25"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
