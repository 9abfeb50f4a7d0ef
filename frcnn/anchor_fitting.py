"""`frcnn fit-anchors`: the anchors of a config beside those that would suit its training set."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import torch

from frcnn.config import Call
from frcnn.data.samples import SampleSource
from frcnn.data.stream import Draw
from frcnn.errors import UserError
from frcnn.experiment import Config, Experiment
from frcnn.inspect.anchor_coverage import AnchorGrid, Coverage, CoverageOf, PlacedObjects, place
from frcnn.inspect.fit_anchors import fit_anchors
from frcnn.modeling.anchors import GridAnchorGenerator

MIN_SIDE = 1.0
"""Objects with a shorter side, in pixels of the network's input, are left out: no anchor is meant for them."""
LEAST_GAIN = 0.005
"""Of the score, in 0..1: less is not worth another set of anchors."""


def fit_to_config(config: Config, num_ratios: int | None, max_images: int) -> str:
    """A report: how well the config's anchors cover the objects, whether others would do better, and YAML to copy.

    Args:
        config: whose training set and anchors are meant.
        num_ratios: how many aspect ratios; None takes as many as the config has.
        max_images: how many training images are looked at.

    Raises:
        UserError: the config has no grid of anchors, or there are no objects.
    """
    experiment = config.build()
    generator, divisor = _generator_of(config, experiment)
    objects = _objects_as_seen(experiment, max_images, generator, divisor)
    now = _grid_of(generator)
    fitted = _rounded(fit_anchors(objects, now, num_ratios or len(now.ratios_of(0))))
    coverage = CoverageOf(objects)
    before, after = coverage(now), coverage(fitted)
    blocks = [
        f"{len(objects):,} objects in {min(max_images, len(experiment.data.train.dataset)):,} training images, as the network "
        "sees them; anchors where they lie on their grids",
        _table(before, after),
    ]
    if fitted.num_anchors == now.num_anchors and after.score < before.score + LEAST_GAIN:
        return "\n\n".join([*blocks, f"Nothing is gained: keep your anchors. {_measured(before, after)}"])
    blocks += [_yaml(fitted, generator), _measured(before, after)]
    if fitted.num_anchors != now.num_anchors:
        blocks.append(
            "The number of anchors a location differs from the config's: RPN weights for it do not fit any more."
        )
    return "\n\n".join(blocks)


def _generator_of(config: Config, experiment: Experiment) -> tuple[GridAnchorGenerator, int]:
    """The config's anchor generator, built on the CPU, and what images are padded to a multiple of."""
    with torch.device("meta"):
        model = experiment.model(1)
    generator = getattr(getattr(model, "proposal_generator", None), "anchor_generator", None)
    if not isinstance(generator, GridAnchorGenerator):
        raise UserError("the config's proposal generator has no grid of anchors: there is nothing to fit")
    call = config.plan.field("model.proposal_generator.anchor_generator")
    assert isinstance(call, Call)
    built = call.close(generator.strides)
    assert isinstance(built, GridAnchorGenerator)
    return built, getattr(model, "size_divisibility", 1)


def _grid_of(generator: GridAnchorGenerator) -> AnchorGrid:
    ratios = tuple(tuple(sorted(values)) for values in generator.aspect_ratios)
    return AnchorGrid(
        tuple(tuple(sorted(values)) for values in generator.sizes), ratios[:1] if len(set(ratios)) == 1 else ratios
    )


def _rounded(grid: AnchorGrid) -> AnchorGrid:
    """With three digits of each number, as many as a config should hold."""
    sizes, ratios = (
        tuple(tuple(float(f"{value:.3g}") for value in values) for values in lists)
        for lists in (grid.sizes, grid.aspect_ratios)
    )
    return AnchorGrid(sizes, ratios)


def _objects_as_seen(
    experiment: Experiment, max_images: int, generator: GridAnchorGenerator, divisor: int
) -> PlacedObjects:
    """The objects of training images, among the places that the generator's anchors have there."""
    boxes, sizes = _boxes_as_seen(experiment, max_images)
    large = [one[((one[:, 2:] - one[:, :2]) >= MIN_SIDE).all(axis=1)] for one in boxes]
    objects = place(
        large,
        padded_sizes(sizes, divisor),
        generator.strides,
        offset=generator.offset,
        padded_size=generator.stride == "padded_size",
        round_cells=generator.round_cells,
    )
    if not len(objects):
        raise UserError(f"the {len(boxes)} images looked at hold no objects: there is nothing to fit anchors to")
    return objects


def padded_sizes(sizes: Sequence[tuple[int, int]], divisor: int) -> list[tuple[int, int]]:
    """(h, w) of images that are padded alone: in a batch they may become larger still."""
    return [(-(-height // divisor) * divisor, -(-width // divisor) * divisor) for height, width in sizes]


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


def _table(before: Coverage, after: Coverage) -> str:
    columns = ["mean IoU", *(f"recall at {threshold:g}" for threshold in before.recall), "mean of all"]
    lines = ["anchors " + "".join(column.rjust(15) for column in columns)]
    for name, coverage in (("now", before), ("fitted", after)):
        shares = [*coverage.recall.values(), coverage.score]
        lines.append(f"{name:<8}{coverage.mean_iou:15.3f}" + "".join(f"{100 * share:14.1f}%" for share in shares))
    return "\n".join(lines)


def _measured(before: Coverage, after: Coverage) -> str:
    return (
        f"The measure is the mean of the four numbers: {100 * before.score:.1f}% with the config's anchors, "
        f"{100 * after.score:.1f}% with the fitted ones."
    )


def _yaml(grid: AnchorGrid, generator: GridAnchorGenerator) -> str:
    """What can be pasted into the config, whatever its generator is called: that starts a node of another name afresh."""
    sizes, ratios = (
        [f"[{', '.join(f'{value:g}' for value in values)}]" for values in lists]
        for lists in (grid.sizes, grid.aspect_ratios)
    )
    options = [
        f"name: {GridAnchorGenerator.__name__}",
        f"sizes: [{', '.join(sizes)}]",
        f"aspect_ratios: {ratios[0] if len(ratios) == 1 else '[' + ', '.join(ratios) + ']'}",
    ]
    defaults = inspect.signature(GridAnchorGenerator).parameters
    for name in ("offset", "round_cells", "stride", "order"):
        value = getattr(generator, name)
        if type(generator) is not GridAnchorGenerator and value != defaults[name].default:
            options.append(f"{name}: {value}")
    lines = ["model:", "  proposal_generator:", "    anchor_generator:", *(f"      {option}" for option in options)]
    return "\n".join(lines)
