"""The images that speed is measured on: from the test set at one stated size, or generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import torch
import torch.nn.functional as F

from frcnn.data.loader import test_loader
from frcnn.data.roles import Category
from frcnn.errors import UserError
from frcnn.experiment import Experiment
from frcnn.structures import Batch, Targets

OBJECTS = 8
"""Objects in a generated image: about the mean of COCO."""


def images_of_test_set(experiment: Experiment, count: int, size: tuple[int, int] | None) -> list[Batch]:
    """The first images of the first test set, one a batch, all resized to one size so that times can be compared.

    Args:
        experiment: its test transforms are applied first.
        count: how many at most.
        size: (h, w); None is that of the first image after its transforms.

    Raises:
        UserError: the test set has no images.
    """
    data = next(iter(experiment.data.test.values()))
    loader = test_loader(data.dataset, data.transforms, batch_size=1, num_workers=0)
    batches = list(islice(loader, count))
    if not batches:
        raise UserError("speed is measured on images of the test set, and it has none")
    size = size or batches[0].image_sizes[0]
    return [_resized(batch, size) for batch in batches]


def _resized(batch: Batch, size: tuple[int, int]) -> Batch:
    if batch.image_sizes[0] == size:
        return batch
    pixels = F.interpolate(batch.images[0][None].float(), size, mode="bilinear", antialias=True)
    return replace(batch, images=[pixels[0].round().to(torch.uint8)], image_sizes=[size])


def synthetic_batches(size: tuple[int, int], batch_size: int, count: int, num_classes: int) -> list[Batch]:
    """Noise with random objects; the same on every call.

    Args:
        size: (h, w) of every image.
        batch_size: images in a batch.
        count: batches.
        num_classes: classes of the objects.
    """
    generator = torch.Generator().manual_seed(0)
    limits = torch.tensor([float(size[1]), float(size[0])])

    def targets() -> Targets:
        corners = torch.rand(OBJECTS, 2, 2, generator=generator) * (limits - 16)  # [objects, 2 corners, x y]
        boxes = torch.cat((corners.amin(dim=1), corners.amax(dim=1) + 16), dim=1)  # at least 16 px wide and high
        return Targets(boxes, torch.randint(0, num_classes, (OBJECTS,), generator=generator))

    def batch() -> Batch:
        pixels = torch.randint(0, 256, (batch_size, 3, *size), dtype=torch.uint8, generator=generator)
        sizes = [size] * batch_size
        return Batch(list(pixels), sizes, sizes, list(range(batch_size)), [targets() for _ in range(batch_size)])

    return [batch() for _ in range(count)]


def synthetic_categories(count: int) -> Sequence[Category]:
    """Classes without a data set."""
    return [Category(number, f"class {number}") for number in range(1, count + 1)]
