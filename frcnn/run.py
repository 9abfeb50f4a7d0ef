"""One run from its request to its end: training, resuming, evaluating."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frcnn import distributed
from frcnn.assembly import about_checkpoint, build_model, build_test_sets, build_train_loader
from frcnn.checkpoint.load import (
    class_dependent_names,
    load_to_resume,
    load_weights,
    require_same_classes,
    res5_where_the_model_has_it,
)
from frcnn.checkpoint.save import find_last
from frcnn.checkpoint.sources import resolve_weights
from frcnn.data.roles import Category
from frcnn.device import choose_device
from frcnn.engine.optim import scale_learning_rate
from frcnn.engine.trainer import Trainer
from frcnn.engine.validation import Evaluation, evaluate
from frcnn.errors import UserError
from frcnn.experiment import Config, read_config
from frcnn.modeling.roles import Detector
from frcnn.run_folder import CONFIG, folder_to_resume, log_to, new_folder, take_back

logger = logging.getLogger("frcnn")


@dataclass(frozen=True)
class Request:
    """What a person asked for on the command line.

    Args:
        config_file: the YAML file, or None to take the run folder's or the checkpoint's.
        overrides: `key=value` words, or pairs of words.
        output_dir: the run folder, instead of the config's.
        resume: go on with a run.
        weights: the checkpoint to evaluate.
        imports: project files that the checkpoint's own config needs.
        init_weights: weights to start from, instead of the config's.
        device: as a person writes it.
        command: the command line, for the log.
    """

    config_file: str | None
    overrides: tuple[str, ...] = ()
    output_dir: str | None = None
    resume: bool = False
    weights: str | None = None
    imports: tuple[str, ...] = ()
    init_weights: str | None = None
    device: str = "auto"
    command: str = ""


def train(request: Request) -> Trainer:
    """Trains, or goes on with a run, and returns the trainer at its end.

    A mistake that is found before the first step leaves no run folder behind; one that is found later is in its log.txt.
    """
    device = local_device(request.device)
    config = _find_config(request)
    experiment = config.build()
    wanted = Path(request.output_dir or experiment.output_dir)
    named = request.output_dir is not None
    folder = folder_to_resume(wanted, exact=named) if request.resume else new_folder(wanted)
    log_to(folder)
    try:
        return _train(request, config, experiment, folder, device)
    except (UserError, OSError) as error:
        logger.error("error: %s", error)
        if not request.resume and distributed.is_main():
            take_back(folder)
        raise


def _train(request: Request, config: Config, experiment: Any, folder: Path, device: torch.device) -> Trainer:
    logger.info("run folder: %s", folder)
    logger.info("%s", _about_device(device))
    categories = experiment.data.train.dataset.categories
    model = build_model(experiment, categories, device)
    state = load_to_resume(folder, _length(experiment)) if request.resume else None
    if state is not None:
        checkpoint = str(find_last(folder))
        require_same_classes([c["name"] for c in state["categories"]], [c.name for c in categories], checkpoint)
        load_weights(model, state["model"], source=checkpoint, strict=True)
    elif source := request.init_weights or experiment.init_weights:
        _initialise(model, source, experiment, categories)
    if state is None and distributed.is_main():
        config.save(folder)
    trainer = _build_trainer(experiment, model, categories, folder, device, config.text, state)
    _describe(trainer, experiment, categories)
    trainer.train()
    logger.info("%s; run folder: %s", _ending(trainer), folder)
    return trainer


def evaluate_only(request: Request) -> Evaluation:
    """Evaluates a checkpoint on the test sets and prints the tables."""
    assert request.weights is not None
    log_to(None)
    device = local_device(request.device)
    weights = resolve_weights(request.weights)
    config = _find_config(request, weights.checkpoint)
    experiment = config.build()
    datasets = {name: data.dataset for name, data in experiment.data.test.items()}
    if not datasets:
        raise UserError("--eval-only: the config has no test set under data.test")
    categories = next(iter(datasets.values())).categories
    if weights.class_names is not None:
        require_same_classes(weights.class_names, [c.name for c in categories], request.weights)
    model = build_model(experiment, categories, device)
    load_weights(model, weights.state_dict, source=request.weights, strict=True)
    test_sets = build_test_sets(experiment, categories, with_targets=False)
    evaluation = evaluate(model, test_sets, device, experiment.trainer.amp, weights_loaded=True)
    for name, result in evaluation.results.items():
        logger.info("%s\n%s", name, result.table())
    return evaluation


def _find_config(request: Request, checkpoint: Mapping[str, Any] | None = None) -> Config:
    if request.config_file:
        return read_config(request.config_file, request.overrides)
    if checkpoint is not None and checkpoint.get("config"):
        return Config.from_text(
            checkpoint["config"], f"config in {request.weights}", request.overrides, request.imports
        )
    if request.resume and request.output_dir:
        path = Path(request.output_dir) / CONFIG
        if not path.exists():
            raise UserError(f"no run to resume in {request.output_dir}: it holds no {CONFIG}")
        return read_config(path, request.overrides)
    raise UserError(f"{request.weights} carries no config: say which with --config-file FILE")


def _initialise(model: Detector, source: str, experiment: Any, categories: Sequence[Category]) -> None:
    weights = resolve_weights(source)
    heads = class_dependent_names(experiment.model, len(categories))
    state_dict = res5_where_the_model_has_it(weights.state_dict, model)
    report = load_weights(model, state_dict, source=source, strict=False, reinitialise=heads)
    logger.info("%s", report.table())


def _build_trainer(
    experiment: Any,
    model: Detector,
    categories: Sequence[Category],
    folder: Path,
    device: torch.device,
    config_text: str,
    state: Mapping[str, Any] | None,
) -> Trainer:
    processes = distributed.world_size()
    if experiment.data.train.batch_size % processes:
        raise UserError(
            f"data.train.batch_size is {experiment.data.train.batch_size} images over all processes, which "
            f"{processes} processes cannot share equally; choose a multiple of {processes}"
        )
    share, parts = experiment.data.train.batch_size // processes, experiment.trainer.accumulate
    if share % parts:
        raise UserError(
            f"trainer.accumulate is {parts}, but the {share} images of a step and process cannot be split into {parts} "
            "equal parts; data.train.batch_size counts the images of all parts together"
        )
    optimizer = experiment.optimizer(model)
    logger.info("%s", scale_learning_rate(optimizer, experiment.data.train.batch_size))
    loader = build_train_loader(
        experiment, start_batch=state["iteration"] if state else 0, pin_memory=device.type == "cuda"
    )
    trainer = Trainer(
        model,
        optimizer,
        experiment.schedule,
        loader,
        build_test_sets(experiment, categories, with_targets=True),
        experiment.hooks,
        experiment.trainer,
        device=device,
        folder=folder,
        seed=experiment.seed,
        about=about_checkpoint(config_text, categories),
    )
    if state is not None:
        trainer.load_state_dict(state)
        logger.info(
            "resumed at iteration %d of %d: weights, optimizer, schedule, hooks and the place in the data",
            trainer.iteration,
            trainer.max_iterations,
        )
    return trainer


def _length(experiment: Any) -> int:
    train = experiment.data.train
    return experiment.trainer.duration.iterations(len(train.dataset) / train.batch_size)


def _describe(trainer: Trainer, experiment: Any, categories: Sequence[Category]) -> None:
    train = experiment.data.train
    parameters = sum(p.numel() for p in trainer.model.parameters())
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    tests = ", ".join(f"{t.name} {len(t.dataset):,}" for t in trainer.test_sets) or "none"
    names = ", ".join(c.name for c in categories[:8]) + (", ..." if len(categories) > 8 else "")
    logger.info(
        "%s training images, test images: %s; %d classes: %s", f"{len(train.dataset):,}", tests, len(categories), names
    )
    logger.info(
        "%s parameters, %s trainable; %d iterations of %d images (%.3g epochs), amp %s",
        f"{parameters:,}",
        f"{trainable:,}",
        trainer.max_iterations,
        train.batch_size,
        trainer.max_iterations / trainer.epoch_length,
        trainer.options.amp,
    )


def _ending(trainer: Trainer) -> str:
    if trainer.stop_reason is None:
        return "done"
    how = "; go on with --resume" if trainer.interrupted else ""
    return f"stopped at iteration {trainer.iteration} of {trainer.max_iterations}: {trainer.stop_reason}{how}"


def local_device(text: str) -> torch.device:
    """The device of this process: with several processes on CUDA, the one of its local rank."""
    device = choose_device(text)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", distributed.local_rank())
        torch.cuda.set_device(device)
    return device


def _about_device(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    processes = f", {distributed.world_size()} processes" if distributed.world_size() > 1 else ""
    return f"device: {device} ({name}{processes}), torch {torch.__version__}"
