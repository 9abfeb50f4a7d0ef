"""From draws to transformed samples to packed batches: what each worker process holds."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from frcnn.data.collate import PackedBatch, pack
from frcnn.data.roles import Dataset, Sample, Transform
from frcnn.data.stream import Draw, keyed_generator
from frcnn.errors import UserError


class SampleSource:
    """What a worker holds: draws in, transformed samples out. A mistake of the user's comes out as a value.

    Args:
        dataset: the images.
        transforms: applied in order.
        seed: of the transforms' generators.
        purpose: which kind of draw the generators are keyed for.
        with_targets: whether batches carry the ground truth.
    """

    def __init__(
        self,
        dataset: Dataset,
        transforms: Sequence[Transform],
        seed: int,
        purpose: str,
        *,
        with_targets: bool,
    ) -> None:
        self.dataset = dataset
        self.transforms = transforms
        self.seed = seed
        self.purpose = purpose
        self.with_targets = with_targets

    def __getitem__(self, draw: Draw) -> Sample | UserError:
        rng = keyed_generator(self.seed, self.purpose, draw.counter)

        def others(n: int) -> list[Sample]:
            return [self.dataset[index] for index in rng.integers(len(self.dataset), size=n).tolist()]

        try:
            sample = self.dataset[draw.index]
            for transform in self.transforms:
                sample = transform(sample, rng, others)
        except UserError as error:
            return error
        return sample

    def collate(self, samples: Sequence[Sample | UserError]) -> PackedBatch | UserError:
        good = [sample for sample in samples if isinstance(sample, Sample)]
        if len(good) < len(samples):
            return next(sample for sample in samples if isinstance(sample, UserError))
        try:
            return pack(good, self.with_targets)
        except UserError as error:
            return error

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return _restore, (pickle.dumps(self.__dict__),)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            parts = ", ".join(type(part).__name__ for part in (self.dataset, *self.transforms))
            raise UserError(
                f"data loading workers cannot be given the data set and transforms ({parts}): {error}; let them hold only "
                "what pickle takes (no lambda, no open file), or set start_method: fork"
            ) from error


def _restore(state: bytes) -> SampleSource:
    source = SampleSource.__new__(SampleSource)
    source.__dict__ = pickle.loads(state)
    return source
