"""Trains a detector from a YAML file, resumes a run, or evaluates a checkpoint.

tools/train_net.py --config-file configs/quickstart.yaml
tools/train_net.py --config-file FILE optimizer.lr=0.01 trainer.duration=6ep    options of the file, overridden
tools/train_net.py --config-file FILE --resume                                  go on with the newest run of this config
tools/train_net.py --resume-from RUN/checkpoint_00000400.pth                    go on with that run from that checkpoint
tools/train_net.py --config-file FILE --eval-only --weights RUN/best.pth
tools/train_net.py --help model.proposal_generator                              what can be written there
torchrun --nproc-per-node 2 tools/train_net.py --config-file FILE               two processes
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from frcnn.errors import UserError

if TYPE_CHECKING:
    from frcnn.request import Request

HEAD_START = 10.0
"""Seconds that the main process has to tell a mistake; torchrun looks ten times a second for a process that ended."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn train`."""
    parser.add_argument("--config-file", metavar="FILE", help="the YAML file of the run")
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="the run folder, instead of the config's output_dir; with --eval-only, where tables and detections go",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of the newest run folder")
    parser.add_argument(
        "--resume-from", metavar="CHECKPOINT", help="go on from this checkpoint of a run, instead of its newest"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate --weights on the test sets and stop")
    parser.add_argument("--weights", metavar="PATH", help="the checkpoint that --eval-only evaluates")
    parser.add_argument(
        "--imports",
        action="append",
        default=[],
        metavar="FILE",
        help="a project's file that --eval-only needs when the config is the checkpoint's own; may be repeated",
    )
    parser.add_argument(
        "--init-weights",
        metavar="SOURCE",
        help="weights to start from: a path, https://..., torchvision://NAME or detectron2://PATH; class heads that do not "
        "fit start anew",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA if there is one, else the CPU), cpu, cuda, cuda:1, mps"
    )
    parser.add_argument(
        "-h",
        "--help",
        nargs="?",
        const="",
        metavar="KEY",
        help="this page; with a key of the config or a component's name, what can be written there",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="options of the config; `KEY VALUE` works too"
    )
    parser.set_defaults(print_help=parser.print_help)


def run(args: argparse.Namespace) -> int:
    """Does what the options ask for and returns the exit code."""
    if args.help == "":
        args.print_help()
        return 0
    if args.help is not None:
        from frcnn.experiment import explain

        print(explain(args.help, args.config_file, args.overrides))
        return 0
    with _main_process_speaks_first():
        _check(args)
    from frcnn import distributed
    from frcnn.run import evaluate_only, train

    with distributed.launched_by_environment(args.device), _main_process_speaks_first():
        request = _request(args)
        if args.eval_only:
            evaluate_only(request)
        else:
            train(request)
    return 0


@contextmanager
def _main_process_speaks_first() -> Iterator[None]:
    """Lets the other processes of torchrun wait before they tell a mistake, which most often is the main one's too.

    The main process tells it and ends, and torchrun ends those that wait. A mistake that one process alone found, such as
    a file that its machine lacks, is told after the wait.
    """
    try:
        yield
    except (UserError, OSError):
        if os.environ.get("RANK", "0") != "0":
            time.sleep(HEAD_START)
        raise


def _request(args: argparse.Namespace) -> Request:
    from frcnn.request import Request

    return Request(
        config_file=args.config_file,
        overrides=tuple(args.overrides),
        output_dir=args.output_dir,
        resume=args.resume or args.resume_from is not None,
        resume_from=args.resume_from,
        weights=args.weights,
        imports=tuple(args.imports),
        init_weights=args.init_weights,
        device=args.device,
    )


def _check(args: argparse.Namespace) -> None:
    if args.eval_only and not args.weights:
        raise UserError("--eval-only needs --weights PATH: which checkpoint is to be evaluated?")
    if args.weights and not args.eval_only:
        raise UserError("--weights goes with --eval-only; to start a training from weights, use --init-weights")
    if args.eval_only and args.init_weights:
        raise UserError("--eval-only evaluates --weights and trains nothing: it takes no --init-weights")
    if (args.resume or args.resume_from) and (args.eval_only or args.init_weights):
        raise UserError("--resume goes on with a run as it was: it takes neither --eval-only nor --init-weights")
    if args.resume_from and args.output_dir:
        raise UserError("--resume-from goes on in the folder of its checkpoint: it takes no --output-dir")
    if args.imports and (args.config_file or not args.eval_only):
        raise UserError(
            "--imports goes with --eval-only and the checkpoint's own config; a config file names the files of its "
            "project under 'imports:'"
        )
    resume = args.resume or args.resume_from
    if not args.config_file and not resume and not args.eval_only:
        raise UserError("--config-file FILE is missing, such as --config-file configs/quickstart.yaml")
    if args.resume and not (args.config_file or args.output_dir or args.resume_from):
        raise UserError("--resume needs --config-file FILE or --output-dir RUN_FOLDER: which run is to go on?")
