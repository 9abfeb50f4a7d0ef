"""Which images come in which batch: a pure function of the seed and the number of batches before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np


@dataclass(frozen=True)
class Draw:
    """One image of a stream.

    Args:
        index: which image of the data set.
        counter: how many draws came before it; with the seed, the key of everything random about it.
    """

    index: int
    counter: int


def aspect_ratio_groups(image_sizes: np.ndarray) -> np.ndarray:
    """[n]: 1 for images that are wider than high, else 0. Batches of one group are padded less.

    Args:
        image_sizes: [n, 2] (h, w).
    """
    return (image_sizes[:, 1] > image_sizes[:, 0]).astype(np.int64)


EpochOrder = Callable[[np.random.Generator], np.ndarray]
"""Gives the indices of the images of one epoch, in their order."""


def batch_stream(
    groups: np.ndarray, batch_size: int, seed: int, start_batch: int = 0, epoch_order: EpochOrder | None = None
) -> Iterator[list[Draw]]:
    """Endless batches: every epoch in a new order, each batch of one group.

    A draw waits in its group's bucket until the bucket makes a batch, over the end of an epoch too. To start at a later
    batch, the draws before it are repeated without their images: that restores the buckets, and takes a second for two
    million draws.

    Args:
        groups: [n], the group of each image.
        batch_size: images in a batch.
        seed: of the orders.
        start_batch: how many batches to leave out.
        epoch_order: which images come in an epoch; every one once if not given.
    """
    if epoch_order is None:
        epoch_order = partial(_every_image_once, num_images=len(groups))
    return islice(_batches(groups, batch_size, seed, epoch_order), start_batch, None)


def _every_image_once(rng: np.random.Generator, *, num_images: int) -> np.ndarray:
    return rng.permutation(num_images)


def _batches(groups: np.ndarray, batch_size: int, seed: int, epoch_order: EpochOrder) -> Iterator[list[Draw]]:
    buckets: list[list[tuple[int, int]]] = [[] for _ in range(int(groups.max()) + 1)]
    group_of = groups.tolist()
    counter = epoch = 0
    while True:
        for index in epoch_order(keyed_generator(seed, "order", epoch)).tolist():
            bucket = buckets[group_of[index]]
            bucket.append((index, counter))
            counter += 1
            if len(bucket) == batch_size:
                yield [Draw(*draw) for draw in bucket]
                bucket.clear()
        epoch += 1


PURPOSES = ("order", "augmentation", "test")


def keyed_generator(seed: int, purpose: str, counter: int) -> np.random.Generator:
    """A generator that depends on these three and nothing else."""
    return np.random.default_rng((seed, PURPOSES.index(purpose), counter))
