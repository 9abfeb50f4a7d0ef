"""Taking a checkpoint: is it whole, is it ours, does it fit the classes, does it fit the model."""

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
from frcnn.checkpoint.save import FORMAT_VERSION
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
        convert = (
            "; --init-weights can start a run from it, and `frcnn convert-weights` makes a checkpoint of a whole detector"
            if kind is not Kind.UNKNOWN
            else ""
        )
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
    class_heads: Collection[str] = (),
    same_classes: bool = True,
) -> LoadReport:
    """Copies weights into a model, or refuses and leaves the model as it was.

    Args:
        model: the model to fill.
        state_dict: weights by the model's own names.
        source: where they came from, for messages.
        strict: True (resume, evaluate, predict) asks for every tensor with its shape and none beside; False (start a
            run) lets tensors be missing or unexpected.
        class_heads: names whose shape may differ when not strict, see `class_dependent_names`.
        same_classes: False initialises the class heads anew even where their shape fits: they know other classes.

    Returns:
        What became of every tensor; print its `table()`.

    Raises:
        UserError: the weights do not fit; holds the table.
    """
    report = _compare(model, state_dict, source, () if same_classes else class_heads)
    if strict and not report.is_exact:
        raise UserError(
            f"{source}: the weights do not fit the model of the config\n{report.table(refused=True)}{_way_out(report)}"
        )
    if not report.loaded:
        raise UserError(
            f"{source}: none of its {len(state_dict)} tensors belongs to the model; "
            f"it has names like {_listed(list(state_dict)[:3])}, the model like {_listed(list(model.state_dict())[:3])}"
        )
    refused = [entry for entry in report.reinitialised if entry.name not in class_heads]
    if refused:
        raise UserError(
            f"{source}: {len(refused)} tensors outside the class heads have another shape, first {refused[0]}; "
            f"is it the same architecture?\n{report.table(refused=True)}"
        )
    model.load_state_dict({name: state_dict[name] for name in report.loaded}, strict=False)
    return report


def _way_out(report: LoadReport) -> str:
    """What can be done with weights that do not fit, of which some do."""
    if report.reinitialised or not report.loaded:
        return ""
    rest = (
        "begins with these, and the rest of the model at random"
        if report.missing
        else "begins with these, which is all that the model has, and leaves the others out"
    )
    return f"\nfrcnn train --init-weights {report.source} {rest}"


def _compare(
    model: nn.Module, state_dict: Mapping[str, Tensor], source: str, reinitialise: Collection[str]
) -> LoadReport:
    """What loading would do to every tensor; nothing is loaded."""
    wanted, given = _shapes(model.state_dict()), _shapes(state_dict)
    loaded = [name for name, shape in wanted.items() if given.get(name) == shape and name not in reinitialise]
    return LoadReport(
        source=source,
        loaded=loaded,
        reinitialised=[
            Reinitialised(name, given[name], shape)
            for name, shape in wanted.items()
            if name in given and (given[name] != shape or name in reinitialise)
        ],
        missing=[name for name in wanted if name not in given and not name.endswith(_NOT_WEIGHTS)],
        unexpected=[name for name in given if name not in wanted and not name.endswith(_NOT_WEIGHTS)],
    )


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
