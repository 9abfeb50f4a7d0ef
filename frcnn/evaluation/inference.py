"""A detector over a whole data set, without gradient."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from frcnn.distributed import all_gather_objects
from frcnn.structures import Batch, Detections, Output

T = TypeVar("T")
AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class InferenceResult:
    """What a detector said of a data set; the same on every process.

    Args:
        detections: image id -> Detections on the CPU, in the pixels of the original images; each image once.
        losses: name -> the mean over images; empty unless they were asked for.
        data_seconds: waiting for batches, on this process.
        model_seconds: computing, on this process.
    """

    detections: dict[int, Detections]
    losses: dict[str, float]
    data_seconds: float
    model_seconds: float


def run_inference(
    detector: nn.Module,
    loader: Iterable[Batch],
    device: torch.device | str,
    *,
    amp: Literal["off", "bf16", "fp16"] = "off",
    with_losses: bool = False,
) -> InferenceResult:
    """Runs a detector over every batch of a loader, in evaluation mode, and gathers what all processes found.

    The training mode of every module is afterwards as it was before, one by one: a BatchNorm that is kept in evaluation
    mode inside a detector in training stays so.

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
    data_seconds, model_seconds = 0.0, 0.0
    with evaluation_mode(detector), torch.inference_mode(), _autocast(device, amp):
        for batch, waited in _timed(loader):
            started = time.perf_counter()
            batch = (batch if with_losses else replace(batch, targets=None)).to(device, non_blocking=True)
            output: Output = detector(batch)
            detections.update(_by_image(batch, output))  # copies to the CPU, and so waits for an accelerator
            losses.add(output.losses if with_losses else {}, len(batch))
            data_seconds += waited
            model_seconds += time.perf_counter() - started
    gathered: dict[int, Detections] = {}
    loss_sums = _LossSums()
    for other_detections, other_losses in all_gather_objects((detections, losses.on_cpu())):
        # the first process that has an image wins, where a sampler pads the shares to one length
        gathered = {**other_detections, **gathered}
        loss_sums.merge(other_losses)
    return InferenceResult(gathered, loss_sums.means(), data_seconds, model_seconds)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each submodule has the mode that it had before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


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


def _autocast(device: torch.device, amp: str) -> torch.autocast:
    if amp != "off" and amp not in AMP_DTYPES:
        raise ValueError(f"amp must be off, bf16 or fp16, got {amp!r}")
    return torch.autocast(device.type, dtype=AMP_DTYPES.get(amp, torch.bfloat16), enabled=amp != "off")


def _timed(items: Iterable[T]) -> Iterator[tuple[T, float]]:
    """Each item and the seconds it was waited for."""
    started = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - started
        started = time.perf_counter()


def _by_image(batch: Batch, output: Output) -> dict[int, Detections]:
    if output.detections is None:
        raise ValueError("the detector returned no detections in evaluation mode; expected one Detections an image")
    return {int(image_id): _on_cpu(found) for image_id, found in zip(batch.image_ids, output.detections, strict=True)}


def _on_cpu(found: Detections) -> Detections:
    """A copy that owns its memory: a slice would keep, and send to other processes, the tensor it was cut from."""
    columns: dict[str, Any] = {field.name: getattr(found, field.name) for field in fields(found)}
    return replace(
        found,
        **{name: value.detach().cpu().clone() for name, value in columns.items() if isinstance(value, Tensor)},
    )
