"""Writes pictures of training images as the network sees them: behind the transforms, with their objects.

frcnn visualize-data --config-file configs/bccd/faster_rcnn_R_18_FPN.yaml --output pictures
frcnn visualize-data --config-file FILE --num-images 4 seed=1
"""

from __future__ import annotations

import argparse

from frcnn.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn visualize-data`."""
    parser.add_argument("--config-file", metavar="FILE", required=True, help="the YAML file of the run")
    parser.add_argument(
        "--output", metavar="DIR", default="pictures", help="where the pictures go (default: %(default)s)"
    )
    parser.add_argument("--num-images", type=int, default=16, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of the config")


def run(args: argparse.Namespace) -> int:
    """Writes the pictures and says where they are."""
    from pathlib import Path

    from frcnn.experiment import read_config
    from frcnn.visualization import save_training_samples

    if args.num_images < 1:
        raise UserError(f"--num-images must be at least 1, got {args.num_images}")
    experiment = read_config(args.config_file, args.overrides).build()
    files = save_training_samples(experiment, Path(args.output), args.num_images)
    print(f"{len(files) - 1} training images, and all of them on {files[-1]}")
    return 0
