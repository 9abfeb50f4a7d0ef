"""Writes pictures of detections beside the ground truth, from the results of a run or of any other program.

frcnn visualize-results --config-file RUN/config.yaml --results RUN/detections_val.json --output pictures
frcnn visualize-results --config-file FILE --results results.json --test-set val --score-thresh 0.3
"""

from __future__ import annotations

import argparse

from frcnn.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn visualize-results`."""
    parser.add_argument("--config-file", metavar="FILE", required=True, help="a config with the test set")
    parser.add_argument("--results", metavar="JSON", required=True, help="detections in the form of COCO's results")
    parser.add_argument("--test-set", metavar="NAME", help="which of the config's test sets (default: the first)")
    parser.add_argument(
        "--output", metavar="DIR", default="pictures", help="where the pictures go (default: %(default)s)"
    )
    parser.add_argument("--num-images", type=int, default=16, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--score-thresh", type=float, default=0.5, metavar="S", help="leave out objects below (default: %(default)s)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of the config")


def run(args: argparse.Namespace) -> int:
    """Writes the pictures and says where they are."""
    from pathlib import Path

    from frcnn.experiment import read_config
    from frcnn.visualization import save_results_gallery

    if args.num_images < 1 or not 0 <= args.score_thresh <= 1:
        raise UserError(
            f"--num-images must be at least 1 and --score-thresh in [0, 1], got {args.num_images} and {args.score_thresh:g}"
        )
    sets = read_config(args.config_file, args.overrides).build().data.test
    name = args.test_set or next(iter(sets), "")
    if name not in sets:
        raise UserError(f"{args.config_file} has no test set '{name}'; there are: {', '.join(sets) or 'none'}")
    files = save_results_gallery(
        sets[name].dataset, name, Path(args.results), Path(args.output), args.num_images, args.score_thresh
    )
    print(f"{len(files) - 1} images of {name}, and all of them on {files[-1]}")
    return 0
