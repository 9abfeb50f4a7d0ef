"""Anchor sizes and aspect ratios that suit a data set: k-means where the distance is 1 - IoU (YOLOv2's dimension clusters).

https://arxiv.org/abs/1612.08242, section 2. Here the centres are a grid, sizes x ratios, because that is what an anchor
generator takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frcnn.modeling.roles import AnchorGenerator
from frcnn.ops.boxes import box_iou

MAX_ROUNDS = 200
LEAST_FACTOR = 1.2
"""From one aspect ratio to the next. Shapes of one area whose ratios are nearer have an IoU above 0.84: one does for both."""
THRESHOLDS = (0.5, 0.6, 0.7)
"""IoU with its best anchor from which on an object counts as recalled."""


@dataclass(frozen=True)
class AnchorFit:
    """Sizes and ratios, and how well they suit.

    Args:
        sizes: square roots of areas in pixels, ascending.
        aspect_ratios: heights over widths, ascending.
        mean_iou: of each object with the best of the shapes, both centred on one point.
    """

    sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    mean_iou: float


@dataclass(frozen=True)
class Recall:
    """How well anchors cover objects, places included.

    Args:
        mean_iou: of each object with its best anchor.
        at: IoU threshold -> share of the objects, 0..1, whose best anchor reaches it.
    """

    mean_iou: float
    at: dict[float, float]


def shape_iou(shapes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes that share their centre.

    Args:
        shapes: [n, 2] width and height in pixels.
        others: [k, 2].

    Returns:
        [n, k].
    """
    common = np.minimum(shapes[:, None], others[None]).prod(axis=-1)  # [n, k]
    return common / (shapes.prod(axis=-1)[:, None] + others.prod(axis=-1)[None] - common)


def fit_shapes(shapes: np.ndarray, num_sizes: int, num_ratios: int) -> AnchorFit:
    """The sizes and ratios whose grid has the highest mean IoU with the objects that k-means finds.

    The first centres are quantiles, so the same objects give the same answer.

    Args:
        shapes: [n, 2] width and height of the objects in pixels.
        num_sizes: how many sizes.
        num_ratios: how many aspect ratios.

    Raises:
        ValueError: there are fewer objects than sizes or ratios.
    """
    if len(shapes) < max(num_sizes, num_ratios):
        raise ValueError(f"{len(shapes)} objects cannot give {num_sizes} sizes and {num_ratios} ratios")
    log_size = np.log(shapes.prod(axis=1)) / 2  # [n]
    log_ratio = np.log(shapes[:, 1] / shapes[:, 0])  # [n]
    sizes, ratios = _quantiles(log_size, num_sizes), _quantiles(log_ratio, num_ratios)
    best = _measured(shapes, sizes, ratios)
    for _ in range(MAX_ROUNDS):
        nearest = shape_iou(shapes, _grid(sizes, ratios)).argmax(axis=1)  # [n]
        moved = _means(log_size, nearest // num_ratios, sizes), _means(log_ratio, nearest % num_ratios, ratios)
        if np.allclose(moved[0], sizes) and np.allclose(moved[1], ratios):
            break
        sizes, ratios = moved
        fit = _measured(shapes, sizes, ratios)
        best = max(best, fit, key=lambda one: one.mean_iou)
    return best


def fit_distinct_shapes(shapes: np.ndarray, num_sizes: int, num_ratios: int) -> AnchorFit:
    """As `fit_shapes`, with as many of the ratios as are `LEAST_FACTOR` apart.

    Args:
        shapes: [n, 2] width and height of the objects in pixels.
        num_sizes: how many sizes.
        num_ratios: how many aspect ratios at most.

    Raises:
        ValueError: there are fewer objects than sizes or ratios.
    """
    fit = fit_shapes(shapes, num_sizes, num_ratios)
    ratios = np.array(fit.aspect_ratios)
    if (ratios[1:] < LEAST_FACTOR * ratios[:-1]).any():
        return fit_distinct_shapes(shapes, num_sizes, num_ratios - 1)
    return fit


def anchor_recall(
    generator: AnchorGenerator,
    strides: Sequence[int],
    boxes_per_image: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
) -> Recall:
    """How well the anchors of a generator cover objects where they are.

    Args:
        generator: of the anchors.
        strides: of its levels in pixels.
        boxes_per_image: n x [G, 4].
        image_sizes: n x (h, w).
    """
    best = []
    for boxes, (height, width) in zip(boxes_per_image, image_sizes, strict=True):
        if len(boxes):
            grids = [(-(-height // stride), -(-width // stride)) for stride in strides]
            per_level = [box_iou(boxes, anchors).amax(dim=1) for anchors in generator(grids, (height, width))]
            best.append(torch.stack(per_level).amax(dim=0))
    iou = torch.cat(best) if best else torch.zeros(0)
    if not len(iou):
        return Recall(0.0, dict.fromkeys(THRESHOLDS, 0.0))
    return Recall(iou.mean().item(), {t: (iou >= t).float().mean().item() for t in THRESHOLDS})


def _quantiles(values: np.ndarray, count: int) -> np.ndarray:
    return np.quantile(values, (np.arange(count) + 0.5) / count)


def _grid(log_sizes: np.ndarray, log_ratios: np.ndarray) -> np.ndarray:
    """[sizes * ratios, 2] width and height, size by size."""
    size, ratio = np.repeat(log_sizes, len(log_ratios)), np.tile(log_ratios, len(log_sizes))
    return np.exp(np.stack([size - ratio / 2, size + ratio / 2], axis=1))


def _means(values: np.ndarray, cluster: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """The mean of each cluster, ascending; one that lost all its objects stays where it was."""
    means = [values[cluster == k].mean() if (cluster == k).any() else centre for k, centre in enumerate(previous)]
    return np.sort(means)


def _measured(shapes: np.ndarray, log_sizes: np.ndarray, log_ratios: np.ndarray) -> AnchorFit:
    mean_iou = float(shape_iou(shapes, _grid(log_sizes, log_ratios)).max(axis=1).mean())
    return AnchorFit(tuple(np.exp(log_sizes).tolist()), tuple(np.exp(log_ratios).tolist()), mean_iou)
