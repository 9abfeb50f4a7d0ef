"""The typed root of a config, and how its parts become a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from frcnn.components import register_components
from frcnn.config import (
    Call,
    ConfigError,
    DictPlan,
    Factory,
    Problem,
    Tree,
    Value,
    build,
    copy_imports,
    describe,
    dump,
    import_file,
    load_imports,
    load_tree,
    open_calls,
    parse_tree,
    read,
)
from frcnn.data.roles import Dataset, ImageSampler, Transform
from frcnn.engine.options import TrainerOptions
from frcnn.engine.roles import Hook, Optimizer, Schedule
from frcnn.errors import UserError
from frcnn.evaluation.roles import Evaluator
from frcnn.modeling.roles import Detector
from frcnn.modeling.tta import TestTimeAugmentation


def _check_sizes(batch_size: int, num_workers: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if num_workers < 0:
        raise ValueError(f"num_workers must be at least 0, got {num_workers}; 0 reads images in the training process")


@dataclass(frozen=True)
class TrainData:
    """Where training batches come from.

    Args:
        dataset: images with objects.
        transforms: applied in this order.
        batch_size: images of one optimizer step, over all processes.
        num_workers: processes that read and transform images, for each training process.
        aspect_ratio_grouping: batches hold only wide or only tall images, so that less is padded.
        start_method: how worker processes start; null is Python's default on this system.
        image_sampler: which images an epoch has; null takes every one once.
    """

    dataset: Dataset
    batch_size: int
    transforms: tuple[Transform, ...] = ()
    num_workers: int = 2
    aspect_ratio_grouping: bool = True
    start_method: Literal["fork", "spawn", "forkserver"] | None = None
    image_sampler: Factory[ImageSampler] | None = None

    def __post_init__(self) -> None:
        _check_sizes(self.batch_size, self.num_workers)


@dataclass(frozen=True)
class TestData:
    """One test set.

    Args:
        dataset: images with ground truth.
        transforms: applied in this order; nothing random.
        batch_size: images at a time, for each process.
        num_workers: processes that read images, for each process that evaluates.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    dataset: Dataset
    transforms: tuple[Transform, ...] = ()
    batch_size: int = 1
    num_workers: int = 2

    def __post_init__(self) -> None:
        _check_sizes(self.batch_size, self.num_workers)


@dataclass(frozen=True)
class DataConfig:
    """Images to train on and to test on.

    Args:
        train: the training set.
        test: name -> test set; each is evaluated.
    """

    train: TrainData
    test: dict[str, TestData]


@dataclass(frozen=True)
class Experiment:
    """One training run.

    Args:
        data: images to train on and to test on.
        model: the detector.
        optimizer: how weights follow gradients.
        schedule: the learning rate over time.
        trainer: how the loop runs.
        evaluator: how detections are judged.
        hooks: name -> what else happens during training.
        output_dir: the run folder; a number is added rather than overwriting an earlier run.
        imports: files of projects whose components the config names, relative to the YAML file.
        seed: of every random draw.
        init_weights: path, https:// address, torchvision://NAME or detectron2://PATH of weights to start from; null starts
            at random.
        test_time_augmentation: views that --eval-only and predict look at every image in; the transforms of the test sets
            are then left out. null looks once.
        num_classes: number of classes; null takes it from the training set's categories, and another number is an error.
    """

    data: DataConfig
    model: Factory[Detector]
    optimizer: Factory[Optimizer]
    schedule: Schedule
    trainer: TrainerOptions
    evaluator: Factory[Evaluator]
    hooks: dict[str, Hook]
    output_dir: str
    imports: tuple[str, ...] = ()
    seed: int = 0
    init_weights: str | None = None
    test_time_augmentation: TestTimeAugmentation | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class Config:
    """A config that has been read, every default filled in.

    Args:
        plan: calls that have not been made yet.
    """

    plan: Call

    @classmethod
    def from_text(
        cls,
        text: str,
        source: str,
        overrides: Sequence[str] = (),
        imports: Sequence[str | os.PathLike[str]] = (),
    ) -> Config:
        """Reads the config of a checkpoint. No file that it names is run: only those that the caller names.

        Args:
            text: the config.
            source: what messages call it.
            overrides: `key=value` words.
            imports: files of the projects whose components it needs.

        Raises:
            ConfigError: every mistake, and which project files are needed.
        """
        register_components()
        for path in imports:
            import_file(path)
        tree = parse_tree(text, source, overrides)
        try:
            return cls(read(tree, Experiment))
        except ConfigError as error:
            if not tree.imports or imports:
                raise
            flags = " ".join(f"--imports {os.path.basename(node.text)}" for node in tree.imports.values())
            raise UserError(
                f"{source}: it was trained with components of a project; nothing named inside a checkpoint is run unasked, "
                f"so say where they are with {flags} (imports=[...] in Python)\n{error}"
            ) from error

    @property
    def text(self) -> str:
        """The complete config as YAML, which reads back to the same."""
        return dump(self.plan)

    def build(self) -> Experiment:
        """Plain objects.

        Raises:
            ConfigError: constructors refused values, with file and line of each.
        """
        refusals = _refusals(self.plan)
        try:
            experiment = build(self.plan)
        except ConfigError as error:
            raise ConfigError([*error.problems, *refusals]) from error
        if refusals:
            raise ConfigError(refusals)
        return experiment

    def save(self, folder: Path) -> None:
        """Writes config.yaml into the run folder, and copies of the project files beside it."""
        plan = copy_imports(self.plan, folder)
        (folder / "config.yaml").write_text(dump(plan), encoding="utf-8")


def read_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, runs the project files that it imports, and checks everything.

    Args:
        path: the file.
        overrides: `key=value`, or `key` and `value` one after the other.

    Raises:
        ConfigError: every mistake, sorted by file and line.
    """
    return Config(read(_load(path, overrides), Experiment))


def _refusals(plan: Call) -> list[Problem]:
    """What the constructors of factories will refuse, of the model and its parts above all; told before any data are read.

    They are tried on the meta device, where nothing is allocated and nothing drawn. What fails there for another reason
    (a fused optimizer wants real weights) is left to the real construction.
    """
    model, optimizer, classes = plan.field("model"), plan.field("optimizer"), plan.field("num_classes")
    assert isinstance(model, Call) and isinstance(optimizer, Call) and isinstance(classes, Value)
    problems = [problem for call in open_calls(plan) for problem in _refused(partial(build, DictPlan(call.options)))]

    def put_together(num_classes: int) -> Any:
        return optimizer.close(model.close(num_classes))

    # While only the data set knows the number of classes, what one class and two are refused alike is sure.
    tried = (classes.value,) if classes.value else (1, 2)
    first, *others = [_refused(partial(put_together, number)) for number in tried]
    return problems + [problem for problem in first if all(problem in other for other in others)]


def _refused(attempt: Callable[[], Any]) -> list[Problem]:
    """What constructors say against their values on the meta device."""
    try:
        with torch.device("meta"):
            attempt()
    except ConfigError as error:
        return list(error.problems)
    except Exception:
        pass
    return []


def explain(key: str, path: str | None, overrides: Sequence[str] = ()) -> str:
    """What can be written at a key of a config, for `--help KEY`.

    Args:
        key: dotted path, or a component's name.
        path: a config that says which components are meant; None knows only what is the same everywhere.
        overrides: as in `read_config`.
    """
    register_components()
    return describe(key, Experiment, _load(path, overrides) if path else None)


def _load(path: str | os.PathLike[str], overrides: Sequence[str]) -> Tree:
    register_components()
    tree = load_tree(path, overrides)
    load_imports(tree)
    return tree
