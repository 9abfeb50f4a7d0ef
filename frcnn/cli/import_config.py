"""Writes our YAML for a detectron2 YAML, or refuses by name each key that it does not carry over.

frcnn import-config configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml --output imported.yaml
frcnn import-config FILE --output imported.yaml --leave-out TEST.EXPECTED_RESULTS      a key that may be lost

The file's _BASE_ is read too, and detectron2's defaults hold for what neither says. The result is complete: it stands on no
other file. Weights follow with `frcnn convert-weights model_final.pkl --config-file imported.yaml --output OUT.pth`.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn import-config`."""
    parser.add_argument("source", metavar="FILE", help="detectron2's YAML")
    parser.add_argument("--output", metavar="PATH", required=True, help="the YAML file to write")
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="KEY",
        help="a key of detectron2 that need not be carried over; may be given more than once",
    )


def run(args: argparse.Namespace) -> int:
    """Imports and returns the exit code."""
    from frcnn.import_config import import_config

    for line in import_config(args.source, args.output, args.leave_out):
        print(line)
    return 0
