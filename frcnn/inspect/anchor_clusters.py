"""Anchor sizes and aspect ratios by k-means where the distance is 1 - IoU (YOLOv2's dimension clusters).

https://arxiv.org/abs/1612.08242, section 2. Here the centres are a grid, sizes x ratios, because that is what an anchor
generator takes.
"""

from __future__ import annotations

import numpy as np

MAX_ROUNDS = 200


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


def cluster_shapes(shapes: np.ndarray, num_sizes: int, num_ratios: int) -> tuple[np.ndarray, np.ndarray]:
    """The sizes and ratios, [num_sizes] and [num_ratios], ascending, whose grid has the highest mean IoU that k-means finds.

    The first centres are quantiles, so the same objects give the same answer.

    Args:
        shapes: [n, 2] width and height of the objects in pixels.
        num_sizes: how many sizes: square roots of areas in pixels.
        num_ratios: how many aspect ratios: heights over widths.

    Raises:
        ValueError: there are no objects.
    """
    if not len(shapes):
        raise ValueError("there are no objects to take shapes from")
    log_size = np.log(shapes.prod(axis=1)) / 2  # [n]
    log_ratio = np.log(shapes[:, 1] / shapes[:, 0])  # [n]
    sizes, ratios = _quantiles(log_size, num_sizes), _quantiles(log_ratio, num_ratios)
    best, best_iou = (sizes, ratios), -1.0
    for _ in range(MAX_ROUNDS):
        iou = shape_iou(shapes, _grid(sizes, ratios))  # [n, sizes * ratios]
        if (mean_iou := float(iou.max(axis=1).mean())) > best_iou:
            best, best_iou = (sizes, ratios), mean_iou
        nearest = iou.argmax(axis=1)  # [n]
        moved = _means(log_size, nearest // num_ratios, sizes), _means(log_ratio, nearest % num_ratios, ratios)
        if np.allclose(moved[0], sizes) and np.allclose(moved[1], ratios):
            break
        sizes, ratios = moved
    return np.exp(best[0]), np.exp(best[1])


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
