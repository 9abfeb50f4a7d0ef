"""Proposes anchor sizes and aspect ratios for the training set of a config, and prints the recall before and after.

frcnn fit-anchors --config-file configs/bccd/faster_rcnn_R_18_FPN.yaml
frcnn fit-anchors --config-file FILE --num-ratios 1 --max-images 500

Objects are measured as the network sees them, behind the config's transforms, and anchors where they lie: on the grid of each
level. What is maximised is the mean of four numbers: the mean IoU of an object with its best anchor, and the shares of the
objects for which that is at least 0.5, 0.6 and 0.7. The numbers of levels, of sizes a level and of ratios stay.
"""

from __future__ import annotations

import argparse

from frcnn.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn fit-anchors`."""
    parser.add_argument("--config-file", metavar="FILE", required=True, help="the YAML file of the run")
    parser.add_argument(
        "--num-ratios",
        type=int,
        metavar="N",
        help="aspect ratios of the proposal (default: as many as the config has)",
    )
    parser.add_argument(
        "--max-images", type=int, default=1000, metavar="N", help="training images to look at (default: %(default)s)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of the config")


def run(args: argparse.Namespace) -> int:
    """Prints what the config has, what would suit better, and how much better."""
    from frcnn.anchor_fitting import fit_to_config
    from frcnn.experiment import read_config

    if args.max_images < 1 or (args.num_ratios is not None and args.num_ratios < 1):
        raise UserError(
            f"--max-images and --num-ratios must be at least 1, got {args.max_images} and {args.num_ratios}"
        )
    print(fit_to_config(read_config(args.config_file, args.overrides), args.num_ratios, args.max_images))
    return 0
