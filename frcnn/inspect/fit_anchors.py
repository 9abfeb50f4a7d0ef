"""Anchor sizes and aspect ratios that cover a data set's objects, searched for where the anchors really lie.

Candidates come from k-means on IoU (anchor_clusters.py) and from the anchors there are now. Shapes alone do not say how good
they are: anchors of a coarse level have few places, and a size that suits many objects covers few of them there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from frcnn.inspect.anchor_clusters import cluster_shapes
from frcnn.inspect.anchor_coverage import AnchorGrid, CoverageOf, PlacedObjects

MAX_OBJECTS = 5000
"""That the search looks at, spread evenly over all."""
STEPS = (1.5, 1.25, 1.1, 1.04)
"""Factors by which sizes and ratios are moved, the next where one gains nothing any more."""
LOSS_WEIGHT = 10.0
"""Of each number of the score that falls below the present one, beside the 1/4 with which a gain counts."""
LEAST_RATIO = 1.2
"""From one aspect ratio to the next: shapes of one area whose ratios are nearer have an IoU above 0.84."""
LEAST_SIZE = 1.1
"""From one size of a level to the next: nearer ones of one ratio have an IoU above 0.83."""


def fit_anchors(objects: PlacedObjects, now: AnchorGrid, num_ratios: int) -> AnchorGrid:
    """The grid of the best score (see Coverage) that a search finds from the present one and from k-means.

    None of the score's numbers falls for a gain in the others, as far as that can be had. With the present number of ratios
    the score is never below the present one, over the objects that the search looks at.

    Args:
        objects: at least one.
        now: the present grid; every level keeps its number of sizes, and sizes go up from level to level.
        num_ratios: how many aspect ratios; they are at least `LEAST_RATIO` apart.
    """
    few = objects.sample(MAX_OBJECTS)
    coverage = CoverageOf(few)
    before = coverage(now)

    def worth(grid: AnchorGrid) -> float:
        after = coverage(grid)
        return after.score - LOSS_WEIGHT * after.shortfall(before)

    found = [_climb(worth, start) for start in _starts(few, now, num_ratios)]
    return max(found, key=worth)  # the first of equals: nearest to the present one


def _starts(objects: PlacedObjects, now: AnchorGrid, num_ratios: int) -> Iterator[AnchorGrid]:
    if num_ratios == len(now.ratios_of(0)):
        yield now
    counts = list(map(len, now.sizes))
    sizes, ratios = cluster_shapes(objects.shapes, sum(counts), num_ratios)
    ratio_lists = (_apart(ratios, LEAST_RATIO),) * len(now.aspect_ratios)
    yield AnchorGrid(now.sizes, ratio_lists)
    ends = list(itertools.accumulate(counts, initial=0))
    yield AnchorGrid(
        tuple(_apart(sizes[start:end], LEAST_SIZE) for start, end in itertools.pairwise(ends)), ratio_lists
    )


def _climb(worth: Callable[[AnchorGrid], float], grid: AnchorGrid) -> AnchorGrid:
    """Moves sizes and ratios, one or several together, as long as the grid is worth more."""
    best = worth(grid)
    for step in STEPS:
        gained = True
        while gained:
            gained = False
            for factors in _moves(grid, step):
                moved = _scaled(grid, factors)
                if _is_in_order(moved) and (value := worth(moved)) > best:
                    grid, best, gained = moved, value, True
    return grid


def _moves(grid: AnchorGrid, step: float) -> Iterator[np.ndarray]:
    """Factors for every size and then every ratio of a grid: one of them, those of a level, or all from a level on."""
    counts = [*map(len, grid.sizes), *map(len, grid.aspect_ratios)]
    list_of = np.repeat(np.arange(len(counts)), counts)  # [P], the list that each number is in
    is_size = list_of < len(grid.sizes)
    chosen = [*np.eye(len(list_of), dtype=bool)]
    chosen += [list_of == k for k in range(len(counts))]
    chosen += [is_size & (list_of >= level) for level in range(len(grid.sizes))]
    for mask in np.unique(chosen, axis=0)[::-1]:
        yield np.where(mask, step, 1.0)
        yield np.where(mask, 1 / step, 1.0)


def _scaled(grid: AnchorGrid, factors: np.ndarray) -> AnchorGrid:
    factor = iter(factors.tolist())
    sizes, ratios = (
        tuple(tuple(value * next(factor) for value in values) for values in lists)
        for lists in (grid.sizes, grid.aspect_ratios)
    )
    return AnchorGrid(sizes, ratios)


def _is_in_order(grid: AnchorGrid) -> bool:
    """No two sizes or ratios are nearly equal, and a coarser level has no smaller anchors."""
    return (
        all(_are_apart(sizes, LEAST_SIZE) for sizes in grid.sizes)
        and all(_are_apart(ratios, LEAST_RATIO) for ratios in grid.aspect_ratios)
        and all(fine[0] <= coarse[0] and fine[-1] <= coarse[-1] for fine, coarse in itertools.pairwise(grid.sizes))
    )


def _are_apart(values: Sequence[float], factor: float) -> bool:
    return all(second >= factor * first * (1 - 1e-9) for first, second in itertools.pairwise(values))


def _apart(values: np.ndarray, factor: float) -> tuple[float, ...]:
    """Ascending values pushed up until they are a factor apart, around the same geometric mean."""
    steps = np.arange(len(values)) * np.log(factor)
    logs = np.maximum.accumulate(np.log(values) - steps) + steps
    return tuple(np.exp(logs - logs.mean() + np.log(values).mean()).tolist())
