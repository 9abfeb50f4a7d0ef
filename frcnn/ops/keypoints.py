"""Keypoints as places in the grid of a box, and back."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

KeypointScore = Literal["probability", "logit"]


def keypoints_to_cells(keypoints: Tensor, boxes: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """In which cell of its box's grid each keypoint lies (Heckbert 1990: continuous c is in the discrete cell floor(c)).

    Args:
        keypoints: [n, J, 3] x, y and visibility (0 not labelled, 1 hidden, 2 seen).
        boxes: [n, 4].
        resolution: cells along each side of a box.

    Returns:
        cells [n, J] int64, row by row (0 where there is none), and whether the keypoint is labelled and in the box
        [n, J] bool.
    """
    x1, y1, x2, y2 = boxes.float()[:, None].unbind(dim=-1)  # [n, 1] each
    x, y, visibility = keypoints.float().unbind(dim=-1)  # [n, J] each
    column = ((x - x1) * (resolution / (x2 - x1))).floor()
    row = ((y - y1) * (resolution / (y2 - y1))).floor()
    # A keypoint on the right or lower side belongs to the last cell.
    column = torch.where(x == x2, resolution - 1, column)
    row = torch.where(y == y2, resolution - 1, row)
    valid = (visibility > 0) & (column >= 0) & (column < resolution) & (row >= 0) & (row < resolution)
    return torch.where(valid, row * resolution + column, 0).long(), valid


def heatmaps_to_keypoints(heatmaps: Tensor, boxes: Tensor, *, score: KeypointScore) -> Tensor:
    """The best place of every keypoint: heatmaps are resized to their boxes, bicubic, and searched for their maximum.

    Args:
        heatmaps: [D, J, M, M] logits.
        boxes: [D, 4] in the pixels of the image.
        score: probability is that of the place, after a softmax over the M x M cells (detectron2); logit is the value
            of the resized heatmap there (torchvision).

    Returns:
        [D, J, 3] x, y and score.
    """
    heatmaps, boxes = heatmaps.float(), boxes.float()
    found = torch.zeros((*heatmaps.shape[:2], 3), device=heatmaps.device)  # [D, J, 3]
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)  # [D, 2] width and height
    pixels = sides.ceil()
    for i, (width, height) in enumerate(pixels.int().tolist()):
        heatmap = heatmaps[i]  # [J, M, M]
        resized = F.interpolate(heatmap[None], size=(height, width), mode="bicubic", align_corners=False)[
            0
        ]  # [J, h, w]
        logit, place = resized.flatten(1).max(dim=1)  # [J] each
        cell = torch.stack((place % width, torch.div(place, width, rounding_mode="floor")), dim=1)  # [J, 2]
        found[i, :, :2] = (cell + 0.5) * (sides[i] / pixels[i]) + boxes[i, :2]
        found[i, :, 2] = logit if score == "logit" else (logit - heatmap.flatten(1).logsumexp(dim=1)).exp()
    return found
