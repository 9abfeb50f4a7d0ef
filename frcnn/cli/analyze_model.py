"""Parameters, FLOPs and activations of a detector, module by module; needs neither data nor weights.

tools/analyze_model.py --config-file configs/coco/faster_rcnn_R_50_FPN_1x.yaml --num-classes 80
tools/analyze_model.py --config-file FILE --size 800x1333 --proposals 1000 --depth 4
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from frcnn.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frcnn.data.roles import Category


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn analyze-model`."""
    parser.add_argument("--config-file", metavar="FILE", required=True, help="the YAML file")
    parser.add_argument(
        "--size", default="800x1333", metavar="HxW", help="of the image, in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--proposals", type=int, default=1000, metavar="N", help="that the ROI heads are given (default: %(default)s)"
    )
    parser.add_argument(
        "--detections",
        type=int,
        default=100,
        metavar="N",
        help="that mask and keypoint branches are given (default: %(default)s)",
    )
    parser.add_argument(
        "--depth", type=int, default=3, metavar="N", help="of the tree of modules (default: %(default)s)"
    )
    parser.add_argument(
        "--num-classes", type=int, metavar="K", help="default: the config's num_classes, else those of its training set"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of the config")


def run(args: argparse.Namespace) -> int:
    """Prints the table."""
    image_size = parse_size(args.size)
    for option, value in (("--proposals", args.proposals), ("--detections", args.detections), ("--depth", args.depth)):
        if value < 1:
            raise UserError(f"{option} must be at least 1, got {value}")
    import torch

    from frcnn.assembly import build_model
    from frcnn.experiment import read_config
    from frcnn.inspect.analysis import analyse
    from frcnn.inspect.analysis_table import analysis_table

    experiment = read_config(args.config_file, args.overrides).build()
    model = build_model(experiment, _categories(experiment, args.num_classes), torch.device("cpu"))
    analysis = analyse(model, image_size, num_proposals=args.proposals, num_detections=args.detections)
    print(analysis_table(analysis, args.depth))
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """`800x1333` as (h, w).

    Raises:
        UserError: something else.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or not 32 <= min(int(match[1]), int(match[2])) <= max(int(match[1]), int(match[2])) <= 16384:
        raise UserError(f"--size is HEIGHTxWIDTH in pixels, each from 32 to 16384, such as 800x1333; got {text!r}")
    return int(match[1]), int(match[2])


def _categories(experiment: Any, given: int | None) -> Sequence[Category]:
    from frcnn.data.roles import Category

    if given is not None and given < 1:
        raise UserError(f"--num-classes must be at least 1, got {given}")
    number = given or experiment.num_classes
    if number:
        return [Category(index + 1, f"class {index + 1}") for index in range(number)]
    try:
        return experiment.data.train.dataset.categories
    except UserError as error:
        raise UserError(f"the number of classes is not known: say it with --num-classes K ({error})") from error
