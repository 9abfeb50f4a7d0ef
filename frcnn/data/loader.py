"""Loaders: from a data set and transforms to batches, for training without end and for testing once through."""
# ruff: noqa: PT028 - test_loader loads test sets and is no test

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from frcnn import distributed
from frcnn.data.roles import Dataset, ImageSampler, Transform
from frcnn.data.samples import SampleSource
from frcnn.data.stream import Draw, aspect_ratio_groups, batch_stream
from frcnn.data.workers import WorkerOptions, deliver
from frcnn.errors import UserError
from frcnn.structures import Batch


class TrainLoader:
    """Endless training batches that depend on the seed and on how many were taken before, and on nothing else.

    Each process of a distributed run takes its share of the same global batches, so that two draw what one would.

    Args:
        dataset: the images.
        transforms: applied in order; their generator is keyed by the seed and the sample's counter.
        batch_size: images in a global batch, over all processes.
        seed: of order and augmentation.
        num_workers: worker processes; 0 loads in this one.
        start_batch: how many batches were taken before, when a run is resumed.
        aspect_ratio_grouping: whether a batch holds only images wider than high, or only others.
        pin_memory: whether batches lie in pinned memory, for copies to CUDA beside the computation.
        start_method: fork, spawn or forkserver; the platform's own if not given.
        image_sampler: which images an epoch has; every one once if not given.
    """

    def __init__(
        self,
        dataset: Dataset,
        transforms: Sequence[Transform],
        *,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        start_batch: int = 0,
        aspect_ratio_grouping: bool = True,
        pin_memory: bool = False,
        start_method: str | None = None,
        image_sampler: ImageSampler | None = None,
    ) -> None:
        processes = distributed.world_size()
        if batch_size < 1 or batch_size % processes:
            raise UserError(
                f"batch_size must be a multiple of the number of processes, {processes}, because it is the batch of "
                f"all of them together; got {batch_size}"
            )
        if not len(dataset):
            raise UserError("the training data set has no images")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.position = start_batch
        self.aspect_ratio_grouping = aspect_ratio_grouping
        self.image_sampler = image_sampler
        self._source = SampleSource(dataset, transforms, seed, "augmentation", with_targets=True)
        self._options = WorkerOptions(num_workers, pin_memory, start_method)

    @property
    def epoch_length(self) -> float:
        """Batches in an epoch, which need not be a whole number."""
        images = len(self.dataset) if self.image_sampler is None else self.image_sampler.epoch_size
        return images / self.batch_size

    def from_the_start(self) -> Iterator[Batch]:
        """The batches from the first one on, whatever was taken; read in this process, and not counted."""
        return deliver(self._source, self._share_of_batches(0), replace(self._options, num_workers=0))

    def __iter__(self) -> Iterator[Batch]:
        """Goes on behind the last batch that was taken: `position` counts those, not the ones that workers prepared."""
        for batch in deliver(self._source, self._share_of_batches(self.position), self._options):
            self.position += 1
            yield batch

    def _share_of_batches(self, start_batch: int) -> Iterator[list[Draw]]:
        sizes = self.dataset.image_sizes
        groups = aspect_ratio_groups(sizes) if self.aspect_ratio_grouping else np.zeros(len(sizes), np.int64)
        share = self.batch_size // distributed.world_size()
        first = share * distributed.rank()
        for draws in batch_stream(groups, self.batch_size, self.seed, start_batch, self.image_sampler):
            yield draws[first : first + share]


class FiniteLoader:
    """Every image once, over all processes together; made by `test_loader`."""

    def __init__(self, source: SampleSource, batches: Sequence[list[Draw]], options: WorkerOptions) -> None:
        self._source = source
        self._batches = batches
        self._options = options

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return deliver(self._source, self._batches, self._options)


def test_loader(
    dataset: Dataset,
    transforms: Sequence[Transform],
    batch_size: int,
    num_workers: int = 0,
    *,
    with_targets: bool = False,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> FiniteLoader:
    """Batches for evaluation: of n processes each takes every n-th image, so every image is taken once.

    Args:
        dataset: the images.
        transforms: applied in order; whatever they draw is the same in every pass.
        batch_size: images in a batch of one process; the last may be smaller.
        num_workers: worker processes; 0 loads in this one.
        with_targets: whether batches carry the ground truth, for a validation loss.
        pin_memory, start_method: as for `TrainLoader`.
    """
    source = SampleSource(dataset, transforms, 0, "test", with_targets=with_targets)
    draws = [Draw(i, i) for i in range(distributed.rank(), len(dataset), distributed.world_size())]
    batches = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
    return FiniteLoader(source, batches, WorkerOptions(num_workers, pin_memory, start_method))
