"""Turns published weights of torchvision and detectron2 into a checkpoint, with a table of what went where.

frcnn convert-weights torchvision://maskrcnn_resnet50_fpn \\
    --config-file configs/torchvision/maskrcnn_resnet50_fpn.yaml --output coco.pth
frcnn convert-weights model_final_b275ba.pkl --config-file configs/coco/faster_rcnn_R_50_FPN_1x.yaml --output zoo.pth
frcnn convert-weights R-50.pkl --output R-50.pth          a backbone alone, for --init-weights
frcnn convert-weights model_final.pth                     the table alone

The checkpoint carries config and class names: `frcnn predict --weights zoo.pth IMAGE` needs nothing else, and
`frcnn train --eval-only --weights zoo.pth` evaluates it. Where the file leaves no doubt how the weights were trained (channel
order, scale of the pixels, where the strides are), the config is set accordingly, and each option is printed. No code in
a file of weights is ever run.
"""

from __future__ import annotations

import argparse

from frcnn.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn convert-weights`."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a .pth or .pkl file, https://..., torchvision://NAME, or detectron2://PATH in its model zoo",
    )
    parser.add_argument("--config-file", metavar="FILE", help="the YAML file of the model that the weights are for")
    parser.add_argument(
        "--output", metavar="PATH", help="the checkpoint to write; without it only the table is printed"
    )
    parser.add_argument(
        "--categories",
        metavar="NAME|FILE",
        help="names of the classes: coco, coco_person, voc, cityscapes, or a COCO JSON file; by default by their number",
    )
    parser.add_argument(
        "--keep-config",
        action="store_true",
        help="leave the config as it is where the weights were trained otherwise; only say so",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="options of the config; `KEY VALUE` works too"
    )


def run(args: argparse.Namespace) -> int:
    """Converts and returns the exit code."""
    if args.config_file is None:
        for option in ("categories", "keep_config", "overrides"):
            if getattr(args, option):
                flag = "KEY=VALUE" if option == "overrides" else f"--{option.replace('_', '-')}"
                raise UserError(f"{flag} goes with --config-file FILE: without a model there is nothing to set")
    elif args.output is None:
        raise UserError("--config-file needs --output PATH: where is the checkpoint to go?")
    from frcnn.convert import ConvertRequest, convert_weights
    from frcnn.run_folder import log_to

    log_to(None)
    request = ConvertRequest(
        source=args.source,
        output=args.output,
        config_file=args.config_file,
        overrides=tuple(args.overrides),
        categories=args.categories,
        keep_config=args.keep_config,
    )
    print("\n".join(convert_weights(request)))
    return 0
