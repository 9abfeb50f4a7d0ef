"""Detects objects in images with a trained checkpoint, which carries its config and class names.

frcnn predict --weights RUN/best.pth image.jpg
frcnn predict --weights RUN/best.pth folder --output predictions --score-thresh 0.7
frcnn predict --weights RUN/best.pth image.jpg "test_time_augmentation.sizes=[640, 800, 960]"
frcnn predict --weights RUN/best.pth image.jpg --imports projects/topk_matcher/topk_matcher.py
"""

from __future__ import annotations

import argparse

from frcnn.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn predict`."""
    parser.add_argument("source", metavar="IMAGE|DIR", help="an image, or a folder whose images are all predicted")
    parser.add_argument("--weights", metavar="PATH", required=True, help="a checkpoint of a run, such as RUN/best.pth")
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="predictions",
        help="annotated images and predictions.json (default: %(default)s)",
    )
    parser.add_argument(
        "--score-thresh",
        type=float,
        default=0.5,
        metavar="S",
        help="leave out objects below this score (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA if there is one, else the CPU), cpu, cuda, cuda:1, mps"
    )
    parser.add_argument(
        "--imports",
        metavar="FILE",
        action="append",
        default=[],
        help="a file of the project whose components the model uses; may be given more than once",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="options of the checkpoint's config, such as how boxes are kept",
    )


def run(args: argparse.Namespace) -> int:
    """Predicts and returns the exit code: 0, or 1 if an image could not be read."""
    if not 0 <= args.score_thresh <= 1:
        raise UserError(f"--score-thresh must be in [0, 1], got {args.score_thresh:g}")
    from pathlib import Path

    from frcnn.deploy.predict import load_predictor
    from frcnn.deploy.predict_files import find_images, predict_files
    from frcnn.run_folder import log_to

    log_to(None)
    find_images(Path(args.source), Path(args.output))  # before seconds of loading
    predictor = load_predictor(args.weights, device=args.device, imports=args.imports, overrides=args.overrides)
    summary = predict_files(predictor, Path(args.source), Path(args.output), score_thresh=args.score_thresh)
    print(summary)
    return 1 if summary.failures else 0
