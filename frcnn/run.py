"""One run from its request to its end: training, resuming, evaluating."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from frcnn import distributed
from frcnn.assembly import (
    about_checkpoint,
    build_model,
    build_test_sets,
    build_train_loader,
    epoch_length,
    require_data_for,
)
from frcnn.checkpoint.adapted import named_as_in
from frcnn.checkpoint.conventions import advice
from frcnn.checkpoint.finite import not_finite
from frcnn.checkpoint.load import (
    class_dependent_names,
    load_weights,
    require_same_classes,
    res5_where_the_model_has_it,
)
from frcnn.checkpoint.resume import last_checkpoint, load_to_resume, require_same_config, set_later_aside
from frcnn.checkpoint.sources import resolve_weights
from frcnn.config.dump import to_plain
from frcnn.data.roles import Category
from frcnn.device import choose_device
from frcnn.engine.optim import scale_learning_rate
from frcnn.engine.trainer import Trainer
from frcnn.engine.validation import Evaluation, TestSet, evaluate
from frcnn.errors import UserError
from frcnn.evaluation.results import save_coco_results
from frcnn.experiment import Config
from frcnn.inspect.curves import plot_metrics
from frcnn.modeling.roles import Detector
from frcnn.modeling.tta import AugmentedDetector
from frcnn.request import Request, find_config
from frcnn.run_folder import folder_to_resume, log_to, logging_to, new_run
from frcnn.run_log import about_device, about_resuming, about_run, ending, frozen_at_random

logger = logging.getLogger("frcnn")


def train(request: Request) -> Trainer:
    """Trains, or goes on with a run, and returns the trainer at its end.

    A mistake that is found before the first step leaves no run folder behind; one that is found later is in its log.txt.
    """
    device = local_device(request.device)
    config = find_config(request)
    if request.init_weights:
        config = Config(config.plan.with_value("init_weights", request.init_weights))
    experiment = config.build()
    wanted = Path(request.output_dir or experiment.output_dir)
    if not request.resume:
        with new_run(wanted) as folder:
            return _run(_start(config, experiment, folder, device))
    if request.resume_from:
        checkpoint = Path(request.resume_from)
    else:
        checkpoint = last_checkpoint(folder_to_resume(wanted, exact=request.output_dir is not None))
    with logging_to(checkpoint.parent):
        return _run(_resume(config, experiment, checkpoint, device))


def _start(config: Config, experiment: Any, folder: Path, device: torch.device) -> Trainer:
    _log_lines(f"run folder: {folder}", about_device(device))
    categories = experiment.data.train.dataset.categories
    model = build_model(experiment, categories, device)
    require_data_for(model, experiment)
    if experiment.init_weights:
        _initialise(model, experiment.init_weights, config, experiment, categories)
    elif warning := frozen_at_random(model):
        _log_lines(warning)
    if distributed.is_main():
        config.save(folder)
    trainer = _build_trainer(experiment, model, categories, folder, device, config.text)
    _log_lines(
        scale_learning_rate(trainer.optimizer, experiment.data.train.batch_size),
        *about_run(trainer, experiment, categories),
    )
    return trainer


def _resume(config: Config, experiment: Any, checkpoint: Path, device: torch.device) -> Trainer:
    _log_lines(f"run folder: {checkpoint.parent}", about_device(device))
    train = experiment.data.train
    categories = train.dataset.categories
    state = load_to_resume(checkpoint, experiment.trainer.duration.iterations(epoch_length(experiment)))
    require_same_classes([c["name"] for c in state["categories"]], [c.name for c in categories], str(checkpoint))
    changes = require_same_config(state, config.text, checkpoint)
    if changes:
        _log_lines(f"changed, with no effect on the training: {'; '.join(map(str, changes))}")
    model = build_model(experiment, categories, device)
    require_data_for(model, experiment)
    report = load_weights(model, state["model"], source=str(checkpoint), strict=True)
    trainer = _build_trainer(
        experiment, model, categories, checkpoint.parent, device, config.text, start=state["iteration"]
    )
    trainer.load_state_dict(state)
    if distributed.is_main():
        for path in set_later_aside(checkpoint):
            _log_lines(f"a later checkpoint, set aside: {path}")
    _log_lines(report.summary(), *about_resuming(trainer), *about_run(trainer, experiment, categories))
    return trainer


def _run(trainer: Trainer) -> Trainer:
    trainer.train()
    if distributed.is_main():
        try:
            plot_metrics(trainer.folder / "metrics.jsonl", trainer.folder / "curves.png")
        except UserError as error:  # a run without LogMetrics and Evaluate has nothing to draw
            _log_lines(f"no curves.png: {error}")
    _log_lines(f"{ending(trainer)}; run folder: {trainer.folder}")
    return trainer


def evaluate_only(request: Request) -> Evaluation:
    """Evaluates a checkpoint on the test sets, prints the tables, and writes them where a folder was named."""
    assert request.weights is not None
    log_to(None)
    device = local_device(request.device)
    with new_run(Path(request.output_dir)) if request.output_dir else nullcontext() as folder:
        weights = resolve_weights(request.weights)
        config = find_config(request, weights.checkpoint)
        experiment = config.build()
        _log_lines(*not_finite(weights), *advice(weights, to_plain(config.plan)))
        datasets = {name: data.dataset for name, data in experiment.data.test.items()}
        if not datasets:
            raise UserError("--eval-only: the config has no test set under data.test")
        categories = next(iter(datasets.values())).categories
        if weights.class_names is not None:
            require_same_classes(weights.class_names, [c.name for c in categories], request.weights)
        model = build_model(experiment, categories, device)
        report = load_weights(model, weights.state_dict, source=request.weights, strict=True)
        _log_lines(report.summary())
        views = experiment.test_time_augmentation
        test_sets = build_test_sets(
            experiment,
            categories,
            with_targets=False,
            pin_memory=device.type == "cuda",
            original_sizes=views is not None,
        )
        detector = model if views is None else AugmentedDetector(model, views)
        evaluation = evaluate(detector, test_sets, device, experiment.trainer.amp, weights_loaded=True)
        for name, result in evaluation.results.items():
            _log_lines(f"{name}\n{result.table()}")
        if folder is not None and distributed.is_main():
            _write_evaluation(folder, evaluation, test_sets)
            _log_lines(f"evaluation folder: {folder}")
    return evaluation


def _write_evaluation(folder: Path, evaluation: Evaluation, test_sets: Sequence[TestSet]) -> None:
    tables = [f"{name}\n{result.table()}\n" for name, result in evaluation.results.items()]
    (folder / "evaluation.txt").write_text("\n".join(tables), encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(evaluation.metrics, indent=1) + "\n", encoding="utf-8")
    for test_set in test_sets:
        path = folder / f"detections_{test_set.name}.json"
        save_coco_results(path, evaluation.detections[test_set.name], test_set.dataset.categories)


def _initialise(model: Detector, source: str, config: Config, experiment: Any, categories: Sequence[Category]) -> None:
    weights = resolve_weights(source)
    if weights.conversion is not None:
        _log_lines(weights.conversion.table())
    _log_lines(*not_finite(weights), *advice(weights, to_plain(config.plan)))
    names = [category.name for category in categories]
    same_classes = weights.class_names in (None, names)
    report = load_weights(
        model,
        res5_where_the_model_has_it(named_as_in(model, weights), model),
        source=source,
        strict=False,
        class_heads=class_dependent_names(experiment.model, len(categories)),
        same_classes=same_classes,
    )
    if not same_classes:
        _log_lines(
            f"class heads start anew: {source} knows {', '.join(weights.class_names or ())}; "
            f"the training set has {', '.join(names)}"
        )
    _log_lines(report.table())


def _build_trainer(
    experiment: Any,
    model: Detector,
    categories: Sequence[Category],
    folder: Path,
    device: torch.device,
    config_text: str,
    start: int = 0,
) -> Trainer:
    _require_equal_shares(experiment.data.train.batch_size, experiment.trainer.accumulate)
    return Trainer(
        model,
        experiment.optimizer(model),
        experiment.schedule,
        build_train_loader(experiment, start_batch=start, pin_memory=device.type == "cuda"),
        build_test_sets(experiment, categories, with_targets=True, pin_memory=device.type == "cuda"),
        experiment.hooks,
        experiment.trainer,
        device=device,
        folder=folder,
        seed=experiment.seed,
        about=about_checkpoint(config_text, categories),
    )


def _require_equal_shares(batch_size: int, accumulate: int) -> None:
    processes = distributed.world_size()
    if batch_size % processes:
        raise UserError(
            f"data.train.batch_size is {batch_size} images over all processes, which {processes} processes cannot "
            f"share equally; choose a multiple of {processes}"
        )
    share = batch_size // processes
    if share % accumulate:
        raise UserError(
            f"trainer.accumulate is {accumulate}, but the {share} images of a step and process cannot be split into "
            f"{accumulate} equal parts; data.train.batch_size counts the images of all parts together"
        )


def local_device(text: str) -> torch.device:
    """The device of this process: with several processes on CUDA, the one of its local rank."""
    device = choose_device(text)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", distributed.local_rank())
        torch.cuda.set_device(device)
    return device


def _log_lines(*lines: str) -> None:
    for line in lines:
        logger.info("%s", line)
