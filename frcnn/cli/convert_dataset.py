"""Writes the annotations of Pascal VOC or Cityscapes as a COCO JSON file, which CocoDataset reads.

frcnn convert-dataset voc VOCdevkit/VOC2007 --split trainval --output datasets/voc/annotations/voc_2007_trainval.json
frcnn convert-dataset cityscapes cityscapes --split val --output datasets/cityscapes/annotations/instances_val.json
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn convert-dataset`."""
    parser.add_argument("form", choices=("voc", "cityscapes"), help="how the annotations are written")
    parser.add_argument("folder", metavar="DIR", help="VOCdevkit/VOC2007, or the folder that holds gtFine")
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="train, val, trainval, test: what the data set has"
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="the JSON file to write")


def run(args: argparse.Namespace) -> int:
    """Converts and returns the exit code."""
    import json
    from pathlib import Path

    from frcnn.data.cityscapes import cityscapes_to_coco
    from frcnn.data.voc import voc_to_coco

    convert = voc_to_coco if args.form == "voc" else cityscapes_to_coco
    content = convert(Path(args.folder), args.split)
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content), encoding="utf-8")
    print(f"{output}: {len(content['images']):,} images, {len(content['annotations']):,} objects")
    return 0
