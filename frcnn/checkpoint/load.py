"""Taking a checkpoint: is it whole, is it ours, does it fit the run, does it fit the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frcnn.checkpoint.files import read_weights_file
from frcnn.checkpoint.kinds import Kind, detect_kind
from frcnn.checkpoint.report import LoadReport, Reinitialised
from frcnn.checkpoint.save import FORMAT_VERSION, find_last
from frcnn.errors import UserError

_NOT_WEIGHTS = "num_batches_tracked"  # a counter that frozen and old batch norms lack; no output depends on it


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint of frcnn, checked to its last byte; tensors on the CPU.

    Args:
        path: the file.

    Returns:
        The dict that `save_checkpoint` was given, see `frcnn.checkpoint.save`.

    Raises:
        UserError: not there, truncated (offers the previous whole one), unsafe to load, another framework's, or of a
            newer version.
    """
    path = Path(path)
    content = read_weights_file(path)
    kind = detect_kind(content)
    if kind is not Kind.FRCNN:
        convert = "; --init-weights can start a run from it" if kind is not Kind.UNKNOWN else ""
        raise UserError(f"{path}: not a checkpoint of frcnn; it looks like {kind}{convert}")
    require_known_version(content, path)
    return content


def require_known_version(content: Mapping[str, Any], path: Path) -> None:
    """Refuses a checkpoint of ours that a newer version wrote."""
    if content["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{path}: written by a newer frcnn (checkpoint version {content['format_version']}; this one reads up to "
            f"{FORMAT_VERSION}); update frcnn"
        )


def inference_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights to evaluate and predict with: the averaged ones where the run kept them."""
    return {**checkpoint["model"], **(checkpoint.get("ema") or {})}


def load_to_resume(folder: str | os.PathLike[str], max_iterations: int) -> dict[str, Any]:
    """The last checkpoint of a run, if the run can go on from it.

    Args:
        folder: the run's folder.
        max_iterations: how long the run is by the config that is to go on.

    Returns:
        The checkpoint.

    Raises:
        UserError: no checkpoint, a damaged one, a finished run, or a run of another length.
    """
    folder = Path(folder)
    path = find_last(folder)
    if path is None:
        state = "holds no checkpoint_*.pth" if folder.is_dir() else "does not exist"
        raise UserError(f"no checkpoint to resume from: {folder} {state}; start the run without --resume")
    checkpoint = load_checkpoint(path)
    if "max_iterations" not in checkpoint:
        raise UserError(
            f"{path}: holds weights to predict with, as best.pth does, and not the state of a run to resume"
        )
    done, planned = checkpoint["iteration"], checkpoint["max_iterations"]
    if planned != max_iterations:
        raise UserError(
            f"{path}: its run is {planned:,} iterations long and the config asks for {max_iterations:,}; a schedule "
            f"of another length is another run. Set trainer.duration back to {planned}it to resume, or start a new run "
            f"with --init-weights {path}"
        )
    if done >= planned:
        raise UserError(
            f"{path}: the run is finished ({done:,} of {planned:,} iterations), nothing is left to resume; "
            f"use --eval-only --weights {path} to evaluate it, or --init-weights {path} to train on from it"
        )
    return checkpoint


def require_same_classes(checkpoint_names: Sequence[str], names: Sequence[str], source: str) -> None:
    """Refuses weights that were trained on other classes.

    Args:
        checkpoint_names: the class names in the checkpoint, in order.
        names: those of the data set.
        source: the checkpoint, for the message.

    Raises:
        UserError: another number of classes, other names, or another order; gives both.
    """
    if list(checkpoint_names) == list(names):
        return
    if len(checkpoint_names) != len(names):
        what = f"{len(checkpoint_names)} classes, and the data set has {len(names)}"
    elif sorted(checkpoint_names) == sorted(names):
        what = "the same classes as the data set, in another order"
    else:
        what = f"{len(names)} classes as the data set has, but not the same ones"
    raise UserError(
        f"{source}: has {what}. In the checkpoint: {_listed(checkpoint_names)}. In the data set: {_listed(names)}. "
        "--init-weights can start a new run from it"
    )


def class_dependent_names(build: Callable[[int], nn.Module], num_classes: int) -> frozenset[str]:
    """The tensors of a model whose shape depends on the number of classes: its class heads.

    Args:
        build: makes the model for a number of classes; called twice, on the meta device, so that nothing is allocated.
        num_classes: the number of classes of the model.
    """
    with torch.device("meta"):
        shapes = _shapes(build(num_classes).state_dict())
        other = _shapes(build(num_classes + 1).state_dict())
    return frozenset(name for name, shape in shapes.items() if other.get(name) != shape)


def load_weights(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    source: str,
    strict: bool,
    reinitialise: Collection[str] = (),
) -> LoadReport:
    """Copies weights into a model, or refuses and leaves the model as it was.

    Args:
        model: the model to fill.
        state_dict: weights by the model's own names.
        source: where they came from, for messages.
        strict: True (resume, evaluate, predict) asks for every tensor with its shape and none beside; False (start a
            run) lets tensors be missing or unexpected.
        reinitialise: names whose shape may differ when not strict, see `class_dependent_names`.

    Returns:
        What became of every tensor; print its `table()`.

    Raises:
        UserError: the weights do not fit; holds the table.
    """
    wanted = _shapes(model.state_dict())
    given = _shapes(state_dict)
    differs = [
        Reinitialised(name, given[name], shape) for name, shape in wanted.items() if given.get(name, shape) != shape
    ]
    loaded = [name for name, shape in wanted.items() if given.get(name) == shape]
    report = LoadReport(
        source=source,
        loaded=loaded,
        reinitialised=differs,
        missing=[name for name in wanted if name not in given and not name.endswith(_NOT_WEIGHTS)],
        unexpected=[name for name in given if name not in wanted and not name.endswith(_NOT_WEIGHTS)],
    )
    if strict and not report.is_exact:
        raise UserError(f"{source}: the weights do not fit the model of the config\n{report.table()}")
    if not loaded:
        raise UserError(
            f"{source}: none of its {len(given)} tensors belongs to the model; "
            f"it has names like {_listed(list(given)[:3])}, the model like {_listed(list(wanted)[:3])}"
        )
    refused = [entry for entry in differs if entry.name not in reinitialise]
    if refused:
        raise UserError(
            f"{source}: {len(refused)} tensors outside the class heads have another shape, first {refused[0]}; "
            f"is it the same architecture?\n{report.table()}"
        )
    model.load_state_dict({name: state_dict[name] for name in loaded}, strict=False)
    return report


def res5_where_the_model_has_it(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Gives a C4 model's box head the last stage of a classifier: it is the same stage, behind the pooler.

    Args:
        state_dict: by our names.
        model: to load into.

    Returns:
        the weights, `backbone.res5.*` renamed if the model has that stage in its ROI heads alone.
    """
    wanted = model.state_dict().keys()
    old, new = "backbone.res5.", "roi_heads.box_head.res5."
    if any(name.startswith(old) for name in wanted) or not any(name.startswith(new) for name in wanted):
        return dict(state_dict)
    return {name.replace(old, new) if name.startswith(old) else name: value for name, value in state_dict.items()}


def _shapes(state_dict: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
