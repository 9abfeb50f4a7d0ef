"""Generates a detection data set of circles, squares and triangles on textured backgrounds: COCO JSON and images.

The same options give the same data set. A folder that already holds it is left as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from frcnn.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn make-shapes`."""
    parser.add_argument("--output", metavar="DIR", default="datasets/shapes", help="the folder (default: %(default)s)")
    parser.add_argument(
        "--num-train", type=int, default=2000, metavar="N", help="training images (default: %(default)s)"
    )
    parser.add_argument("--num-test", type=int, default=200, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument(
        "--image-size", type=int, default=128, metavar="PX", help="side of an image (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other images (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes the data set and says where it is."""
    from frcnn.data.shapes import MIN_IMAGE_SIZE, make_shapes

    if min(args.num_train, args.num_test) < 0 or args.image_size < MIN_IMAGE_SIZE or args.seed < 0:
        raise UserError(
            f"--num-train, --num-test and --seed must be at least 0 and --image-size at least {MIN_IMAGE_SIZE}; got "
            f"{args.num_train}, {args.num_test}, {args.seed} and {args.image_size}"
        )
    make_shapes(
        Path(args.output),
        num_train=args.num_train,
        num_test=args.num_test,
        image_size=args.image_size,
        seed=args.seed,
    )
    print(f"{args.output}: {args.num_train:,} training and {args.num_test:,} test images of {args.image_size} pixels")
    return 0
