"""Latency of inference and throughput of training, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from frcnn.assembly import build_model, build_train_loader
from frcnn.benchmark.machine import describe_machine, peak_memory
from frcnn.benchmark.speed_data import images_of_test_set, synthetic_batches, synthetic_categories
from frcnn.benchmark.tasks import SpeedOptions, Task
from frcnn.checkpoint.load import inference_weights, load_checkpoint, load_weights
from frcnn.data.roles import Category
from frcnn.engine.durations import Duration
from frcnn.engine.optim import scale_learning_rate
from frcnn.engine.options import TrainerOptions
from frcnn.engine.roles import Hook
from frcnn.engine.trainer import Trainer
from frcnn.experiment import Experiment, read_config
from frcnn.inspect.analysis import analyse
from frcnn.precision import autocast
from frcnn.run import local_device
from frcnn.structures import Batch

TRAINING_BATCHES = 4
"""Different batches that the timed steps go through; they are read before the clock starts."""


def measure_latency(task: Task) -> dict[str, Any]:
    """Seconds of forward passes of one image, from uint8 pixels on the device to detections; then parameters and FLOPs."""
    options, device = _options(task), local_device(task.device)
    experiment, categories = _experiment(task)
    detector = build_model(experiment, categories, device)
    if options.weights:
        state = inference_weights(load_checkpoint(options.weights))
        load_weights(detector, state, source=options.weights, strict=True)
    detector.eval()
    images = _images(experiment, options, len(categories))
    size = images[0].image_sizes[0]
    seconds, found = [], []
    with torch.inference_mode(), autocast(experiment.trainer.amp, device):
        for batch in islice(cycle([image.to(device) for image in images]), options.warmup + options.repeats):
            _wait_for(device)
            started = time.perf_counter()
            detections = detector(batch).detections
            _wait_for(device)
            seconds.append(time.perf_counter() - started)
            found.append(len(detections[0]) if detections else 0)
    memory = peak_memory(device)
    analysis = analyse(detector, size, num_proposals=options.proposals)
    return {
        "variant": task.variant,
        "round": task.number,
        "size": list(size),
        "seconds": seconds[options.warmup :],
        "detections_per_image": sum(found[options.warmup :]) / options.repeats,
        "trained": options.weights is not None,
        "peak_memory": memory,
        "parameters": analysis.total.parameters,
        "trainable": analysis.total.trainable,
        "flops": analysis.total.flops,
        "activations": analysis.total.activations,
        "amp": experiment.trainer.amp,
        "machine": describe_machine(device),
    }


def measure_throughput(task: Task) -> dict[str, Any]:
    """Seconds of training steps, without waiting for data: forward, backward, optimizer."""
    options, device = _options(task), local_device(task.device)
    experiment, categories = _experiment(task)
    detector = build_model(experiment, categories, device)
    optimizer: Any = experiment.optimizer(detector)
    scale_learning_rate(optimizer, experiment.data.train.batch_size)
    watch = _StepTimes(options.warmup + options.repeats)
    trainer = Trainer(
        detector,
        optimizer,
        experiment.schedule,
        _PreparedBatches(_training_batches(experiment, options)),
        (),
        {"watch": watch},
        _long_enough(experiment.trainer, watch.steps),
        device=device,
        folder=Path(task.folder),
        seed=experiment.seed,
    )
    trainer.train()
    return {
        "variant": task.variant,
        "round": task.number,
        "batch_size": experiment.data.train.batch_size,
        "seconds": watch.seconds[options.warmup :],
        "peak_memory": peak_memory(device),
        "amp": experiment.trainer.amp,
        "machine": describe_machine(device),
    }


class _StepTimes(Hook):
    """Times each step from its batch to the new weights, and stops after enough of them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seconds: list[float] = []
        self.started = 0.0

    def before_step(self, trainer: Trainer) -> None:
        _wait_for(trainer.device)
        self.started = time.perf_counter()

    def after_step(self, trainer: Trainer) -> None:
        _wait_for(trainer.device)
        self.seconds.append(time.perf_counter() - self.started)
        if len(self.seconds) >= self.steps:
            trainer.stop("every step that was asked for is timed")


@dataclass(frozen=True)
class _PreparedBatches:
    """A loader whose batches were read before; an epoch is as long as a schedule may want it."""

    batches: Sequence[Batch]
    epoch_length: float = 1000.0

    def from_the_start(self) -> Iterator[Batch]:
        return iter(self)

    def __iter__(self) -> Iterator[Batch]:
        return cycle(self.batches)


def _long_enough(options: TrainerOptions, steps: int) -> TrainerOptions:
    if options.duration.iterations(_PreparedBatches.epoch_length) > steps:
        return options
    return replace(options, duration=Duration(steps + 1, "it"))


def _options(task: Task) -> SpeedOptions:
    assert task.speed is not None
    return task.speed


def _experiment(task: Task) -> tuple[Experiment, Sequence[Category]]:
    """The experiment, and the categories of its classes."""
    options = _options(task)
    experiment = read_config(task.config_file).build()
    if options.synthetic_classes:
        return replace(experiment, num_classes=None), synthetic_categories(options.synthetic_classes)
    return experiment, experiment.data.train.dataset.categories


def _images(experiment: Experiment, options: SpeedOptions, num_classes: int) -> list[Batch]:
    if options.synthetic_classes:
        return synthetic_batches(options.size or (800, 1333), 1, options.images, num_classes)
    return images_of_test_set(experiment, options.images, options.size)


def _training_batches(experiment: Experiment, options: SpeedOptions) -> list[Batch]:
    if options.synthetic_classes:
        size, batch_size = options.size or (800, 1333), experiment.data.train.batch_size
        return synthetic_batches(size, batch_size, TRAINING_BATCHES, options.synthetic_classes)
    return list(islice(build_train_loader(experiment, start_batch=0, pin_memory=False), TRAINING_BATCHES))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
