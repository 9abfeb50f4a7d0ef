import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align

import frcnn.ops.masks as mask_ops
from frcnn.ops.masks import crop_and_resize, cut_masks, encode_masks, paste_masks, paste_masks_torchvision
from frcnn.structures import InstanceMasks


def on_the_whole_image(dense, index, boxes, resolution, aligned):
    rois = torch.cat((index[:, None].float(), boxes), dim=1)
    return roi_align(dense[:, None].float(), rois, (resolution, resolution), 1.0, 0, aligned)[:, 0]


def some_masks(seed, count=5, height=60, width=80):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in dense:
        x1, x2 = sorted(torch.randint(0, width + 1, (2,), generator=generator).tolist())
        y1, y2 = sorted(torch.randint(0, height + 1, (2,), generator=generator).tolist())
        mask[y1:y2, x1:x2] = torch.rand(y2 - y1, x2 - x1, generator=generator) > 0.4
    return dense


def some_boxes(seed, count, height=60, width=80):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values * torch.tensor([width, height])
    return corners.flatten(1)


def test_windows_are_tight_with_a_margin_inside_the_image():
    dense = torch.zeros(3, 6, 8, dtype=torch.bool)
    dense[0, 2, 3:5] = True
    dense[2, 0, 7] = True  # in the upper right corner; the second object has no pixel
    masks = cut_masks(dense)
    assert masks.windows.tolist() == [[2, 1, 6, 4], [0, 0, 0, 0], [6, 0, 8, 2]]
    assert masks.pixels.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_a_box_sees_its_part_of_the_mask_by_hand():
    # The object is the left half of a 4 x 4 square; a grid of 2 x 2 over it is full at the left and empty at the right.
    dense = torch.zeros(1, 10, 10, dtype=torch.bool)
    dense[0, 2:6, 2:4] = True
    seen = crop_and_resize(
        cut_masks(dense), torch.tensor([0, 0]), torch.tensor([[2.0, 2, 6, 6], [6, 6, 8, 8]]), 2, aligned=True
    )
    # Each cell covers two columns of pixels and samples both at their centres.
    assert seen[0].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert seen[1].tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("aligned", [True, False])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_windows_give_what_whole_images_give(aligned, seed):
    dense = some_masks(seed)
    boxes = some_boxes(seed + 1, 12)
    boxes[0] = torch.tensor([0.0, 0.0, 80.0, 60.0])  # the whole image
    boxes[1] = torch.tensor([70.5, 50.25, 80.0, 60.0])  # its lower right corner
    boxes[2] = torch.tensor([0.0, 0.0, 4.5, 7.75])  # its upper left corner
    index = torch.randint(0, len(dense), (12,), generator=torch.Generator().manual_seed(seed))
    expected = on_the_whole_image(dense, index, boxes, 14, aligned)
    torch.testing.assert_close(
        crop_and_resize(cut_masks(dense), index, boxes, 14, aligned=aligned), expected, rtol=0, atol=1e-4
    )


def test_masks_are_unpacked_some_at_a_time(monkeypatch):
    dense, boxes = some_masks(3, count=9), some_boxes(4, 20)
    index = torch.arange(20) % 9
    together = crop_and_resize(cut_masks(dense), index, boxes, 28, aligned=True)
    sizes = []
    unpack = mask_ops._unpack
    monkeypatch.setattr(mask_ops, "CANVAS_ELEMENTS", 5000)
    monkeypatch.setattr(mask_ops, "_unpack", lambda *args: sizes.append(unpack(*args).shape) or unpack(*args))
    torch.testing.assert_close(crop_and_resize(cut_masks(dense), index, boxes, 28, aligned=True), together)
    assert len(sizes) > 2
    assert all(shape.numel() <= 5000 for shape in sizes if shape[0] > 1)


def test_a_hundred_objects_of_a_large_image_are_never_all_unpacked(monkeypatch):
    windows = torch.tensor([[0, 0, 1333, 1333]]).repeat(100, 1)
    masks = InstanceMasks(torch.ones(1333 * 1333, dtype=torch.uint8).repeat(100), windows)
    largest = []
    unpack = mask_ops._unpack
    monkeypatch.setattr(mask_ops, "_unpack", lambda *args: largest.append(unpack(*args).numel()) or unpack(*args))
    seen = crop_and_resize(masks, torch.tensor([0, 50, 99]), torch.tensor([[5.0, 5, 900, 900]] * 3), 28, aligned=True)
    assert seen.min() == seen.max() == 1
    assert max(largest) <= mask_ops.CANVAS_ELEMENTS


def test_no_object_no_mask_and_no_box():
    nothing = InstanceMasks(torch.zeros(0, dtype=torch.uint8), torch.zeros(0, 4, dtype=torch.int64))
    assert crop_and_resize(nothing, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 28, aligned=True).shape == (
        0,
        28,
        28,
    )
    dense = torch.zeros(2, 8, 8, dtype=torch.bool)  # the first object has no pixel at all
    dense[1, :, :] = True
    seen = crop_and_resize(cut_masks(dense), torch.tensor([0, 1]), torch.tensor([[0.0, 0, 8, 8]] * 2), 4, aligned=True)
    assert seen[0].max() == 0
    assert seen[1].min() == 1


def test_pasting_by_hand():
    # A mask of 2 x 2 cells with its left half set, in a box of 4 x 2 pixels: between the cells' centres at x = 2 and 4
    # of the image the probability falls from 1 to 0, so the pixel centres at 1.5, 2.5 are in and 3.5, 4.5 are out.
    masks = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    pasted = paste_masks(masks, torch.tensor([[1.0, 1.0, 5.0, 3.0]]), (4, 6))
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[1:3, 1:3] = True
    assert torch.equal(pasted[0], expected)


def detectron2_paste(masks, boxes, size):
    """Every pixel of the image through one grid_sample."""
    x, y = torch.arange(size[1]) + 0.5, torch.arange(size[0]) + 0.5
    x = (x - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    y = (y - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    grid = torch.stack((x[:, None].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])), dim=3)
    return torch.nn.functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_pasting_a_part_is_pasting_the_image(threshold):
    boxes = torch.cat((some_boxes(1, 20), torch.tensor([[-9.0, -5, 90, 70], [60, 40, 95, 80], [-30, -30, -20, -20]])))
    masks = torch.rand(len(boxes), 28, 28, generator=torch.Generator().manual_seed(2))
    expected = detectron2_paste(masks, boxes, (60, 80)) >= threshold
    assert torch.equal(paste_masks(masks, boxes, (60, 80), threshold=threshold), expected)


def test_encoded_masks_are_the_pasted_ones():
    boxes, masks = some_boxes(5, 6), torch.rand(6, 28, 28, generator=torch.Generator().manual_seed(3))
    encoded = encode_masks(masks, boxes, (60, 80))
    pasted = paste_masks(masks, boxes, (60, 80))
    assert encoded.size == (60, 80)
    for i, mask in enumerate(pasted):
        assert np.array_equal(coco_mask.decode(encoded.rle(i)).astype(bool), mask.numpy())
    assert len(encode_masks(masks[:0], boxes[:0], (60, 80))) == 0


def test_torchvision_pasting_is_torchvisions():
    boxes = torch.cat((some_boxes(7, 20), torch.tensor([[-9.0, -5, 90, 70], [60, 40, 95, 80]])))
    masks = torch.rand(len(boxes), 28, 28, generator=torch.Generator().manual_seed(2))
    expected = paste_masks_in_image(masks[:, None], boxes, (60, 80))[:, 0]
    torch.testing.assert_close(paste_masks_torchvision(masks, boxes, (60, 80)), expected)
    assert paste_masks_torchvision(masks[:1], torch.tensor([[200.0, 200, 210, 210]]), (60, 80)).max() == 0
