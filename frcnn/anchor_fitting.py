"""`frcnn fit-anchors`: the anchors of a config beside those that would suit its training set."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from frcnn.config import Call
from frcnn.data.samples import SampleSource
from frcnn.data.stream import Draw
from frcnn.errors import UserError
from frcnn.experiment import Config, Experiment
from frcnn.inspect.fit_anchors import LEAST_FACTOR, AnchorFit, Recall, anchor_recall, fit_distinct_shapes
from frcnn.modeling.anchors import GridAnchorGenerator

MIN_SIDE = 1.0
"""Objects with a shorter side, in pixels of the network's input, are left out: no anchor is meant for them."""


def fit_to_config(config: Config, num_ratios: int | None, max_images: int) -> str:
    """A report: recall of the config's anchors, sizes and ratios that fit better, their recall, and YAML to copy.

    Args:
        config: whose training set and anchors are meant.
        num_ratios: how many aspect ratios, fewer where some would be nearly equal; None takes as many as the config has.
        max_images: how many training images are looked at.

    Raises:
        UserError: the config's anchors are not a grid with one size a level, or there are no objects.
    """
    experiment = config.build()
    now, strides = _anchors_of(config, experiment)
    boxes, sizes = _boxes_as_seen(experiment, max_images)
    shapes = np.concatenate([one[:, 2:] - one[:, :2] for one in boxes] or [np.zeros((0, 2))])
    shapes = shapes[(shapes >= MIN_SIDE).all(axis=1)].astype(np.float64)
    if len(shapes) < len(strides):
        raise UserError(f"the {len(boxes)} images looked at hold {len(shapes)} objects: too few to fit anchors to")
    asked = num_ratios or now.num_anchors
    fit = fit_distinct_shapes(shapes, len(strides), asked)
    rounded = dataclasses.replace(
        fit,
        sizes=tuple(float(f"{size:.3g}") for size in fit.sizes),
        aspect_ratios=tuple(float(f"{ratio:.2g}") for ratio in fit.aspect_ratios),
    )
    fitted = GridAnchorGenerator(
        strides,
        sizes=tuple((size,) for size in rounded.sizes),
        aspect_ratios=rounded.aspect_ratios,
        offset=now.offset,
        round_cells=now.round_cells,
        stride=now.stride,
    )
    tensors = [torch.from_numpy(one) for one in boxes]
    before, after = (anchor_recall(generator, strides, tensors, sizes) for generator in (now, fitted))
    report = _report(len(shapes), len(boxes), before, after, rounded)
    return "\n\n".join([report, *_remarks(before, after, now.num_anchors, asked, len(fit.aspect_ratios))])


def _anchors_of(config: Config, experiment: Experiment) -> tuple[GridAnchorGenerator, tuple[int, ...]]:
    """The config's anchor generator, built on the CPU, and the strides of its levels."""
    with torch.device("meta"):
        model = experiment.model(1)
    generator = getattr(getattr(model, "proposal_generator", None), "anchor_generator", None)
    if not isinstance(generator, GridAnchorGenerator):
        raise UserError("the config's proposal generator has no grid of anchors: there is nothing to fit")
    call = config.plan.field("model.proposal_generator.anchor_generator")
    assert isinstance(call, Call)
    return call.close(generator.strides), generator.strides


def _boxes_as_seen(experiment: Experiment, max_images: int) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Boxes and sizes of training images behind the transforms, drawn over the whole set."""
    train = experiment.data.train
    source = SampleSource(train.dataset, train.transforms, experiment.seed, "augmentation", with_targets=True)
    count = min(max_images, len(train.dataset))
    boxes, sizes = [], []
    for counter, index in enumerate(np.linspace(0, len(train.dataset) - 1, count).round().astype(int).tolist()):
        sample = source[Draw(index=index, counter=counter)]
        if isinstance(sample, UserError):
            raise sample
        boxes.append(sample.boxes)
        sizes.append((sample.image.shape[0], sample.image.shape[1]))
    return boxes, sizes


def _report(num_objects: int, num_images: int, before: Recall, after: Recall, fit: AnchorFit) -> str:
    columns = ["mean IoU", *(f"recall at {threshold:g}" for threshold in before.at)]
    rows = [
        ("now", [before.mean_iou, *(100 * share for share in before.at.values())]),
        ("fitted", [after.mean_iou, *(100 * share for share in after.at.values())]),
    ]
    lines = [f"{num_objects:,} objects in {num_images:,} training images, as the network sees them", ""]
    lines.append("anchors " + "".join(column.rjust(15) for column in columns))
    for name, (mean_iou, *recall) in rows:
        lines.append(f"{name:<8}{mean_iou:15.3f}" + "".join(f"{value:14.1f}%" for value in recall))
    sizes = ", ".join(f"[{size:g}]" for size in fit.sizes)
    ratios = ", ".join(f"{ratio:g}" for ratio in fit.aspect_ratios)
    lines += [
        "",
        "model:",
        "  proposal_generator:",
        f"    anchor_generator: {{sizes: [{sizes}], aspect_ratios: [{ratios}]}}",
    ]
    return "\n".join(lines)


def _remarks(before: Recall, after: Recall, num_now: int, num_asked: int, num_fitted: int) -> list[str]:
    """What to know before the proposal is copied."""
    remarks = []
    if num_fitted < num_asked:
        remarks.append(
            f"{num_fitted} aspect ratios are proposed, not {num_asked}: of more, two would be nearer to each other than a "
            f"factor of {LEAST_FACTOR:g}, nearly equal."
        )
    if num_fitted != num_now:
        remarks.append(
            "The number of anchors a location differs from the config's: RPN weights for it do not fit any more."
        )
    if after.mean_iou <= before.mean_iou:
        remarks.append("The config's anchors cover the objects no worse: keep them.")
    return remarks
