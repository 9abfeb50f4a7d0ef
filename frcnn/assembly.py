"""The parts of an experiment put together: model, test sets, training loader."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from frcnn.data.loader import TrainLoader, test_loader
from frcnn.data.roles import Category, Dataset
from frcnn.engine.validation import TestSet
from frcnn.errors import UserError
from frcnn.experiment import Experiment
from frcnn.modeling.branches.keypoints import KeypointBranch
from frcnn.modeling.roles import Detector


def build_model(experiment: Experiment, categories: Sequence[Category], device: torch.device) -> Detector:
    """The detector with random weights that depend on the seed alone.

    Args:
        experiment: the run.
        categories: of the training set.
        device: where the weights go.

    Raises:
        UserError: the config's number of classes is not the data's.
    """
    given = experiment.num_classes
    if given is not None and given != len(categories):
        names = ", ".join(shortened([category.name for category in categories]))
        raise UserError(
            f"num_classes is {given} in the config, but the training set has {len(categories)} categories ({names}); "
            "leave num_classes out: the data set knows"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        model = experiment.model(len(categories))
    if experiment.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def shortened(names: Sequence[str]) -> list[str]:
    """The names, or of ten and more the first four and the last."""
    return list(names) if len(names) < 10 else [*names[:4], "...", names[-1]]


def require_data_for(model: Detector, experiment: Experiment) -> None:
    """What the model and the transforms read must come with the images; told before weights are loaded or images read.

    Raises:
        UserError: says which data set lacks what, and the option that gives it; or that its objects have another number of
            keypoints than the model.
    """
    train = experiment.data.train
    _require(model.fields_to_train, "data.train", train.dataset)
    for transform in train.transforms:
        _require(transform.reads, "data.train", train.dataset, type(transform).__name__, "it out of the transforms")
    _require_number_of_keypoints(model, train.dataset)
    for name, data in experiment.data.test.items():
        _require(model.fields_to_predict, f"data.test.{name}", data.dataset)


def _require_number_of_keypoints(model: Detector, dataset: Dataset) -> None:
    named = {len(category.keypoints) for category in dataset.categories if category.keypoints}
    for part in model.modules():
        if isinstance(part, KeypointBranch) and named and part.num_keypoints not in named:
            raise UserError(
                f"KeypointBranch has num_keypoints: {part.num_keypoints}, and the categories of data.train.dataset have "
                f"{' or '.join(map(str, sorted(named)))}"
            )


def _require(
    fields: frozenset[str],
    where: str,
    dataset: Dataset,
    who: str = "the model",
    otherwise: str = "the part that needs them out of the model",
) -> None:
    missing = sorted(fields - dataset.provides)
    if missing:
        value = "FILE" if missing[0] == "proposals" else "true"
        has_option = missing[0] in inspect.signature(type(dataset)).parameters
        raise UserError(
            f"{who} needs {' and '.join(missing)}, which {where}.dataset does not give; "
            + (f"set {where}.dataset.{missing[0]}={value}" if has_option else "choose a data set that does")
            + f", or take {otherwise}"
        )


def build_test_sets(
    experiment: Experiment,
    categories: Sequence[Category],
    *,
    with_targets: bool,
    pin_memory: bool = False,
    original_sizes: bool = False,
) -> list[TestSet]:
    """Every test set with its loader and evaluator.

    Args:
        experiment: the run.
        categories: of the model's classes; a test set must have the same.
        with_targets: whether batches carry ground truth, for validation losses.
        pin_memory: for a CUDA device.
        original_sizes: leave the transforms out, for a detector that scales images itself.

    Raises:
        UserError: a test set's categories are not the model's.
    """
    test_sets = []
    for name, data in experiment.data.test.items():
        check_same_categories(f"data.test.{name}", data.dataset.categories, categories)
        loader = test_loader(
            data.dataset,
            () if original_sizes else data.transforms,
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            with_targets=with_targets,
            pin_memory=pin_memory,
            start_method=experiment.data.train.start_method,
        )
        test_sets.append(TestSet(name, data.dataset, loader, experiment.evaluator(data.dataset)))
    return test_sets


def build_train_loader(experiment: Experiment, *, start_batch: int, pin_memory: bool) -> TrainLoader:
    """Training batches, from a position on.

    Args:
        experiment: the run.
        start_batch: how many batches have been trained on.
        pin_memory: for a CUDA device.
    """
    train = experiment.data.train
    return TrainLoader(
        train.dataset,
        train.transforms,
        batch_size=train.batch_size,
        seed=experiment.seed,
        num_workers=train.num_workers,
        start_batch=start_batch,
        aspect_ratio_grouping=train.aspect_ratio_grouping,
        pin_memory=pin_memory,
        start_method=train.start_method,
        image_sampler=None if train.image_sampler is None else train.image_sampler(train.dataset),
    )


def epoch_length(experiment: Experiment) -> float:
    """Batches in an epoch, which need not be a whole number."""
    return build_train_loader(experiment, start_batch=0, pin_memory=False).epoch_length


def check_same_categories(where: str, found: Sequence[Category], expected: Sequence[Category]) -> None:
    """Class k must mean the same in both.

    Raises:
        UserError: names that differ; says which.
    """
    names, wanted = [c.name for c in found], [c.name for c in expected]
    if names != wanted:
        raise UserError(
            f"{where} has the categories {', '.join(names)}, but the training set has {', '.join(wanted)}; "
            "a class must have the same place (in the order of the category ids) in both"
        )


def about_checkpoint(config_text: str, categories: Sequence[Category]) -> Mapping[str, Any]:
    """What every checkpoint carries so that predicting needs nothing else."""
    return {"config": config_text, "categories": list(map(_as_plain, categories))}


def _as_plain(category: Category) -> dict[str, Any]:
    keypoints = {"keypoints": category.keypoints, "skeleton": category.skeleton} if category.keypoints else {}
    return {"id": category.id, "name": category.name, **keypoints}
