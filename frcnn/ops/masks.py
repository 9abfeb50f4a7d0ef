"""Masks of objects: from the image into boxes (training targets), and from boxes back into the image (results).

Coordinates are continuous: pixel i covers i..i+1 and its centre is i + 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from frcnn.structures import EncodedMasks, InstanceMasks

CANVAS_ELEMENTS = 2**22
"""How many pixels of cut masks `crop_and_resize` unpacks at once (16 MiB)."""


def cut_masks(masks: Tensor) -> InstanceMasks:
    """Masks of the whole image, each cut to the pixels of its object and a margin of one pixel inside the image.

    Args:
        masks: [G, h, w] bool.
    """
    height, width = masks.shape[1:]
    windows = torch.zeros(len(masks), 4, dtype=torch.int64, device=masks.device)
    pixels = [masks.new_zeros(0, dtype=torch.uint8)]
    for mask, window in zip(masks, windows, strict=True):
        y, x = torch.where(mask)
        if len(y) == 0:
            continue
        x1, y1 = max(int(x.min()) - 1, 0), max(int(y.min()) - 1, 0)
        x2, y2 = min(int(x.max()) + 2, width), min(int(y.max()) + 2, height)
        window.copy_(torch.tensor([x1, y1, x2, y2]))
        pixels.append(mask[y1:y2, x1:x2].flatten().to(torch.uint8))
    return InstanceMasks(torch.cat(pixels), windows)


def crop_and_resize(masks: InstanceMasks, index: Tensor, boxes: Tensor, resolution: int, *, aligned: bool) -> Tensor:
    """What each box sees of the mask of one object, averaged over the cells of a grid.

    Equal to ROIAlign with adaptive sampling on the masks of the whole image, for boxes inside the image and windows that
    reach a pixel beyond the mask or to the image's border. Only the windows are unpacked, some objects at a time.

    Args:
        masks: of the G objects of one image.
        index: [n] int64 in 0..G-1, the object each box looks at.
        boxes: [n, 4] in the pixels of the image.
        resolution: cells along each side of the result.
        aligned: a pixel's value lies at its centre (detectron2), not at its corner (torchvision).

    Returns:
        [n, resolution, resolution] float32 in 0..1.
    """
    boxes = boxes.float()
    result = boxes.new_zeros(len(boxes), resolution, resolution)  # [n, M, M]
    owners: list[int] = index.tolist()
    windows: list[list[int]] = masks.windows.tolist()
    sizes = [(y2 - y1, x2 - x1) for x1, y1, x2, y2 in windows]
    for objects in _chunks(sorted(set(owners), key=lambda i: sizes[i]), sizes):
        place = {owner: i for i, owner in enumerate(objects)}
        rows = torch.tensor([row for row, owner in enumerate(owners) if owner in place], device=boxes.device)  # [r]
        canvas_of_row = boxes.new_tensor([place[owner] for owner in owners if owner in place])[:, None]  # [r, 1]
        canvases = _unpack(masks, objects, sizes)  # [o, h, w]
        corners = masks.windows[index[rows], :2].repeat(1, 2)  # [r, 4]
        rois = torch.cat((canvas_of_row, boxes[rows] - corners), dim=1)  # [r, 5]
        result[rows] = roi_align(canvases[:, None], rois, resolution, 1.0, 0, aligned)[:, 0]
    return result


def _chunks(objects: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Objects that fit into one canvas for all of them; an object that is too large alone is alone."""
    chunk: list[int] = []
    height = width = 0
    for i in objects:
        height, width = max(height, sizes[i][0]), max(width, sizes[i][1])
        if chunk and (len(chunk) + 1) * (height + 1) * (width + 1) > CANVAS_ELEMENTS:
            yield chunk
            chunk, (height, width) = [], sizes[i]
        chunk.append(i)
    if chunk:
        yield chunk


def _unpack(masks: InstanceMasks, objects: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Tensor:
    """The windows of some objects, [o, h, w] float32, each at the top left of a canvas for the largest.

    One more row and column repeat the last: ROIAlign repeats the border of an image in the same way, and where the window
    ends before the image does, its last row and column are empty.
    """
    starts = [0, *accumulate(h * w for h, w in sizes)]
    height, width = max(sizes[i][0] for i in objects), max(sizes[i][1] for i in objects)
    canvases = torch.zeros(len(objects), height + 1, width + 1, device=masks.pixels.device)
    for canvas, i in zip(canvases, objects, strict=True):
        h, w = sizes[i]
        canvas[:h, :w] = masks.pixels[starts[i] : starts[i + 1]].view(h, w)
        canvas[h, :w] = canvas[h - 1, :w]
        canvas[:, w] = canvas[:, w - 1]
    return canvases


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], *, threshold: float = 0.5) -> Tensor:
    """Scales masks to their boxes and puts them into the image, as detectron2 does: sampled at the centres of pixels.

    Args:
        masks: [D, M, M] probabilities in the frame of each box.
        boxes: [D, 4] in the pixels of the image.
        size: (h, w) of the image.
        threshold: what a pixel of the object has at least.

    Returns:
        [D, h, w] bool, on the device of `masks`.
    """
    pasted = torch.zeros((len(masks), *size), dtype=torch.bool, device=masks.device)
    for image_mask, (x1, y1, part) in zip(pasted, _pasted_windows(masks, boxes, size, threshold), strict=True):
        image_mask[y1 : y1 + part.shape[0], x1 : x1 + part.shape[1]] = part
    return pasted


def encode_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], *, threshold: float = 0.5) -> EncodedMasks:
    """The masks that `paste_masks` gives, as COCO's run lengths; one image-sized mask exists at a time.

    Args:
        masks: [D, M, M] probabilities in the frame of each box.
        boxes: [D, 4] in the pixels of the image.
        size: (h, w) of the image.
        threshold: what a pixel of the object has at least.
    """
    counts = []
    for x1, y1, part in _pasted_windows(masks.cpu(), boxes.cpu(), size, threshold):
        image_mask = np.zeros(size, dtype=np.uint8, order="F")
        image_mask[y1 : y1 + part.shape[0], x1 : x1 + part.shape[1]] = part.numpy()
        counts.append(coco_mask.encode(image_mask)["counts"])
    return EncodedMasks(size, tuple(counts))


def _pasted_windows(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> Iterator[tuple[int, int, Tensor]]:
    """For each mask the left and upper end of the part of the image that it can touch, and that part [h, w] bool."""
    height, width = size
    # Half a cell beyond the box the mask has faded to 0.
    margin = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0) / (2 * masks.shape[-1])  # [D, 2]
    lower, upper = (boxes[:, :2] - margin).floor(), (boxes[:, 2:] + margin).ceil()  # [D, 2] each
    for mask, box, ends in zip(masks.float(), boxes.float(), torch.cat((lower, upper), dim=1).tolist(), strict=True):
        x1, y1 = (int(max(end, 0)) for end in ends[:2])
        x2, y2 = max(x1, int(min(ends[2], width))), max(y1, int(min(ends[3], height)))
        x = torch.arange(x1, x2, device=masks.device) + 0.5  # [w]
        y = torch.arange(y1, y2, device=masks.device) + 0.5  # [h]
        x = (x - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (y - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # [h, w, 2]
        sampled = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]  # [h, w]
        yield x1, y1, sampled >= threshold


def paste_masks_torchvision(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales masks to their boxes and puts them into the image, as torchvision does: the box is rounded to pixels.

    Each mask gets a border of 0, its box grows with it and is cut to whole numbers, and the mask is resized to these.

    Args:
        masks: [D, M, M] probabilities in the frame of each box.
        boxes: [D, 4] in the pixels of the image.
        size: (h, w) of the image.

    Returns:
        [D, h, w] float32 probabilities, on the device of `masks`.
    """
    resolution = masks.shape[-1]
    centers, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
    half = half * ((resolution + 2) / resolution)
    grown = torch.cat((centers - half, centers + half), dim=1).to(torch.int64)  # [D, 4]
    pasted = masks.new_zeros(len(masks), *size)
    for image_mask, mask, (x1, y1, x2, y2) in zip(pasted, F.pad(masks, (1, 1, 1, 1)), grown.tolist(), strict=True):
        w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        resized = F.interpolate(mask[None, None], size=(h, w), mode="bilinear", align_corners=False)[0, 0]  # [h, w]
        left, top = max(x1, 0), max(y1, 0)
        right, bottom = max(left, min(x2 + 1, size[1])), max(top, min(y2 + 1, size[0]))
        image_mask[top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1]
    return pasted
