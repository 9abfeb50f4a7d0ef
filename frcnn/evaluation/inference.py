"""A detector over a whole data set, without gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from frcnn.distributed import all_gather_objects, gather_objects
from frcnn.modeling.modes import evaluation_mode
from frcnn.ops.encoding import with_encoded_masks
from frcnn.precision import Amp, autocast
from frcnn.structures import Batch, Detections, DrawKey, Output


@dataclass(frozen=True)
class InferenceResult:
    """What a detector said of a data set.

    Args:
        detections: image id -> Detections on the CPU, in the pixels of the original images, masks as run lengths; each
            image once; empty on processes other than the main one.
        losses: name -> the mean over images, the same on every process; empty unless they were asked for.
    """

    detections: dict[int, Detections]
    losses: dict[str, float]


def run_inference(
    detector: nn.Module,
    loader: Iterable[Batch],
    device: torch.device | str,
    *,
    amp: Amp = "off",
    with_losses: bool = False,
) -> InferenceResult:
    """Runs a detector over every batch of a loader, in evaluation mode, and gathers what all processes found.

    The training mode of every module is afterwards as it was before, one by one: a BatchNorm that is kept in evaluation
    mode inside a detector in training stays so.

    Anchors and ROIs are drawn for each image by its id. A loss is the mean over batches, weighted by their images, and a
    batch divides by its own count of ROIs (or anchors, unless the normaliser is the quota) and pads to its largest
    image: only those two make a validation loss depend on how images are put together.

    Args:
        detector: a Detector, already on `device`.
        loader: gives this process's share of the images.
        device: where the detector is.
        amp: the precision to compute in; off is float32.
        with_losses: also compute the losses, from the targets in the batches.
    """
    device = torch.device(device)
    detections: dict[int, Detections] = {}
    losses = _LossSums()
    with evaluation_mode(detector), torch.inference_mode(), autocast(amp, device):
        for batch in loader:
            batch = replace(batch, draw=DrawKey(images=tuple(batch.image_ids)))
            batch = (batch if with_losses else replace(batch, targets=None)).to(device, non_blocking=True)
            output: Output = detector(batch)
            detections.update(_by_image(batch, output))
            losses.add(output.losses if with_losses else {}, len(batch))
    gathered: dict[int, Detections] = {}
    for others in gather_objects(detections):
        gathered = {**others, **gathered}  # the first process that has an image wins, where a sampler pads the shares
    loss_sums = _LossSums()
    for other_losses in all_gather_objects(losses.on_cpu()):
        loss_sums.merge(other_losses)
    return InferenceResult(gathered, loss_sums.means())


class _LossSums:
    """Sums of losses, each counted for every image of its batch."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.images: dict[str, int] = {}

    def add(self, losses: dict[str, Tensor], num_images: int) -> None:
        for name, value in losses.items():
            # stays on the device: reading it here would wait for the accelerator once for each loss
            self._add(name, value.detach().float() * num_images, num_images)

    def merge(self, other: _LossSums) -> None:
        for name, value in other.sums.items():
            self._add(name, value, other.images[name])

    def _add(self, name: str, value: Tensor, num_images: int) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.images[name] = self.images.get(name, 0) + num_images

    def on_cpu(self) -> _LossSums:
        copy = _LossSums()
        copy.sums = {name: value.cpu().double() for name, value in self.sums.items()}
        copy.images = dict(self.images)
        return copy

    def means(self) -> dict[str, float]:
        return {name: value.item() / self.images[name] for name, value in self.sums.items()}


def _by_image(batch: Batch, output: Output) -> dict[int, Detections]:
    if output.detections is None:
        raise ValueError("the detector returned no detections in evaluation mode; expected one Detections an image")
    found_in_images = zip(batch.image_ids, output.detections, batch.original_sizes, strict=True)
    return {int(image_id): with_encoded_masks(_on_cpu(found), size) for image_id, found, size in found_in_images}


def _on_cpu(found: Detections) -> Detections:
    """A copy that owns its memory: a slice would keep, and send to other processes, the tensor it was cut from."""
    columns: dict[str, Any] = {field.name: getattr(found, field.name) for field in fields(found)}
    copies: dict[str, Any] = {
        name: value.detach().cpu().clone() for name, value in columns.items() if isinstance(value, Tensor)
    }
    return replace(found, **copies)
