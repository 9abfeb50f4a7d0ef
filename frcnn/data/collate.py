"""Samples to batches, packed so that they travel cheaply from a worker to the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from frcnn.data.images import opencv
from frcnn.data.roles import Sample
from frcnn.errors import UserError
from frcnn.structures import Batch, InstanceMasks, Targets


@dataclass(frozen=True)
class PackedBatch:
    """A batch with all its pixels in one tensor: one piece of shared memory, one file descriptor.

    Args:
        pixels: [sum of 3 h w] uint8, image after image, each [3, h, w].
        image_sizes: B x (h, w).
        original_sizes: B x (h, w) of the files.
        image_ids: B ids.
        boxes: B x [G, 4] float32, or None when targets are not wanted.
        classes: B x [G] int64.
        mask_pixels: [sum of h w] uint8, mask after mask of image after image; None without masks.
        mask_windows: B x [G, 4] int64, or None for each image without masks.
        keypoints: B x [G, J, 3] float32, or None likewise.
        proposals: B x [P, 4] float32, or None where the data set brings none.
    """

    pixels: Tensor
    image_sizes: list[tuple[int, int]]
    original_sizes: list[tuple[int, int]]
    image_ids: list[int]
    boxes: list[np.ndarray] | None
    classes: list[np.ndarray]
    mask_pixels: Tensor | None
    mask_windows: list[np.ndarray | None]
    keypoints: list[np.ndarray | None]
    proposals: list[np.ndarray] | None

    def pin_memory(self) -> PackedBatch:
        """Called by the data loader's pinning thread."""
        masks = self.mask_pixels
        return replace(self, pixels=self.pixels.pin_memory(), mask_pixels=None if masks is None else masks.pin_memory())

    def unpack(self) -> Batch:
        lengths = [3 * height * width for height, width in self.image_sizes]
        images = [
            pixels.view(3, height, width)
            for pixels, (height, width) in zip(self.pixels.split(lengths), self.image_sizes, strict=True)
        ]
        return Batch(
            images,
            self.image_sizes,
            self.original_sizes,
            self.image_ids,
            targets=None if self.boxes is None else self._targets(self.boxes),
            proposals=None if self.proposals is None else [torch.from_numpy(boxes) for boxes in self.proposals],
        )

    def _targets(self, boxes_per_image: Sequence[np.ndarray]) -> list[Targets]:
        columns = zip(boxes_per_image, self.classes, self._masks(), self.keypoints, strict=True)
        return [
            Targets(
                boxes=torch.from_numpy(boxes),
                classes=torch.from_numpy(classes),
                masks=masks,
                keypoints=None if keypoints is None else torch.from_numpy(keypoints),
            )
            for boxes, classes, masks, keypoints in columns
        ]

    def _masks(self) -> list[InstanceMasks | None]:
        if self.mask_pixels is None:
            return [None] * len(self.image_sizes)
        lengths = [0 if windows is None else _area(windows) for windows in self.mask_windows]
        return [
            None if windows is None else InstanceMasks(pixels, torch.from_numpy(windows))
            for pixels, windows in zip(self.mask_pixels.split(lengths), self.mask_windows, strict=True)
        ]


def pack(samples: Sequence[Sample], with_targets: bool) -> PackedBatch:
    """Packs samples into one batch. Masks become pixels here, once their image is as the network will see it.

    Args:
        samples: B samples.
        with_targets: whether the batch carries the ground truth.

    Raises:
        UserError: there is not enough shared memory for it.
    """
    image_sizes = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
    pixels = _allocate(sum(sample.image.size for sample in samples))
    flat, start = pixels.numpy(), 0
    for sample in samples:
        height, width = sample.image.shape[:2]
        planes = flat[start : start + sample.image.size].reshape(3, height, width)
        opencv().split(sample.image, list(planes))  # writes into the planes, ten times faster than a transposed copy
        start += sample.image.size
    mask_pixels, mask_windows = _rasterise(samples) if with_targets else (None, [])
    proposals = [sample.proposals for sample in samples if sample.proposals is not None]
    return PackedBatch(
        pixels=pixels,
        image_sizes=image_sizes,
        original_sizes=[sample.original_size for sample in samples],
        image_ids=[sample.image_id for sample in samples],
        boxes=[np.ascontiguousarray(sample.boxes, np.float32) for sample in samples] if with_targets else None,
        classes=[np.ascontiguousarray(sample.classes, np.int64) for sample in samples] if with_targets else [],
        mask_pixels=mask_pixels,
        mask_windows=mask_windows,
        keypoints=[sample.keypoints for sample in samples] if with_targets else [],
        proposals=proposals if len(proposals) == len(samples) else None,
    )


def _rasterise(samples: Sequence[Sample]) -> tuple[Tensor | None, list[np.ndarray | None]]:
    """The pixels of all masks in one tensor, and the windows of each image's."""
    if all(sample.masks is None for sample in samples):
        return None, [None] * len(samples)
    rasters = [
        None if sample.masks is None else [mask.raster(*sample.image.shape[:2]) for mask in sample.masks]
        for sample in samples
    ]
    parts = [raster.pixels.ravel() for of_image in rasters for raster in of_image or ()]
    pixels = _allocate(sum(part.size for part in parts))
    if parts:
        np.concatenate(parts, out=pixels.numpy())
    windows = [
        None if of_image is None else np.array([raster.window for raster in of_image], np.int64).reshape(-1, 4)
        for of_image in rasters
    ]
    return pixels, windows


def _area(windows: np.ndarray) -> int:
    """Pixels of the windows [G, 4] together."""
    return int(((windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])).sum())


def _allocate(num_bytes: int) -> Tensor:
    pixels = torch.empty(num_bytes, dtype=torch.uint8)
    if get_worker_info() is None:
        return pixels
    try:
        # The queue would do this later, in a thread whose errors nobody hears.
        return pixels.share_memory_()
    except RuntimeError as error:
        raise UserError(
            f"a worker could not get {num_bytes / 1e6:.0f} MB of shared memory for a batch: {error}; enlarge /dev/shm "
            "(docker run --shm-size=8g), or lower batch_size or num_workers (0 needs no shared memory)"
        ) from error
