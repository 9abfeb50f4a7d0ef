"""Compares configs: AP over seeds with its uncertainty, latency, throughput, memory, FLOPs.

tools/benchmark.py configs/a.yaml configs/b.yaml --seeds 3 --max-duration 2ep
tools/benchmark.py configs/a.yaml configs/b.yaml --speed-only --size 800x1333 --synthetic-classes 80   without data sets
tools/benchmark.py configs/*.yaml optimizer.lr=1e-3 --scheduler submitit --scheduler-option slurm_partition=gpu

The first config is what the others are compared with. Every run is a process of its own; a run whose result is in --output is
not repeated, and one that was killed goes on from its checkpoint: the same command again finishes the benchmark.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frcnn.cli.analyze_model import parse_size
from frcnn.errors import UserError

if TYPE_CHECKING:
    from frcnn.benchmark.scheduler import Scheduler
    from frcnn.benchmark.session import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn benchmark`."""
    parser.add_argument(
        "words", nargs="+", metavar="CONFIG | KEY=VALUE", help="YAML files, and options that change all of them"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trains with the seeds 0 to N-1 (default: 3)")
    parser.add_argument("--max-duration", metavar="12ep", help="of each training, instead of the config's: 2ep, 500it")
    parser.add_argument(
        "--speed-only", action="store_true", help="train nothing; latency, throughput, memory and FLOPs only"
    )
    parser.add_argument("--output", default="runs/benchmark", metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto (CUDA if there is one, else the CPU), cpu, cuda, cuda:1")
    parser.add_argument(
        "--size", metavar="HxW", help="of the images of the latency; default: that of the first test image"
    )
    for option, default, text in (
        ("--rounds", 3, "in which the speed of all variants is measured"),
        ("--warmup", 3, "passes or steps before the clock counts"),
        ("--repeats", 20, "passes or steps that are timed in a round"),
        ("--proposals", 1000, "that the ROI heads are given for the FLOPs"),
    ):
        parser.add_argument(option, type=int, default=default, metavar="N", help=f"{text} (default: {default})")
    parser.add_argument(
        "--synthetic-classes",
        type=int,
        metavar="K",
        help="with --speed-only: generated images, for data sets that are not here",
    )
    parser.add_argument(
        "--remove-checkpoints", action="store_true", help="of finished runs, but those of the first seed"
    )
    parser.add_argument(
        "--scheduler", choices=("local", "submitit", "ray"), default="local", help="where runs go (default: local)"
    )
    parser.add_argument(
        "--scheduler-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of submitit, such as slurm_partition=gpu, timeout_min=600, gpus_per_node=1, cluster=local; of Ray, such as "
        "num_gpus=1, num_cpus=8, address=auto; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Runs what is missing, writes the report and prints its table."""
    _check(args)
    from frcnn.benchmark.report import write_report
    from frcnn.benchmark.session import run_benchmark
    from frcnn.benchmark.summary import summarise
    from frcnn.benchmark.text_tables import terminal_report

    plan = make_plan(args)
    try:
        run_benchmark(plan, _scheduler(args), lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", flush=True)
        write_report(summarise(plan), plan.output)
        raise
    summary = summarise(plan)
    print(f"\n{terminal_report(summary)}\n\n{', '.join(write_report(summary, plan.output))} in {plan.output}")
    return 1 if any(row.problems for row in summary.rows) else 0


def _check(args: argparse.Namespace) -> None:
    for option in ("seeds", "rounds", "repeats", "proposals", "synthetic_classes"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    if args.warmup < 0:
        raise UserError(f"--warmup must be at least 0, got {args.warmup}")
    if args.synthetic_classes and not args.speed_only:
        raise UserError("--synthetic-classes goes with --speed-only: nothing can be learned from generated noise")
    if args.scheduler_option and args.scheduler == "local":
        raise UserError("--scheduler-option goes with --scheduler submitit or ray")
    if not _configs(args):
        raise UserError("which configs? name at least one YAML file")


def _configs(args: argparse.Namespace) -> list[str]:
    return [word for word in args.words if "=" not in word]


def make_plan(args: argparse.Namespace) -> Plan:
    """What the options ask for.

    Raises:
        UserError: no config can be read, or they cannot be compared.
    """
    from frcnn.benchmark.session import Plan
    from frcnn.benchmark.tasks import SpeedOptions
    from frcnn.benchmark.variants import read_variants, require_comparable

    overrides = [word for word in args.words if "=" in word]
    variants = read_variants(_configs(args), overrides, args.max_duration)
    for variant in variants:
        if variant.error:
            print(f"{variant.config_file}: left out: {variant.error}", flush=True)
    if not any(variant.config for variant in variants):
        raise UserError("no config is left to benchmark")
    if not args.speed_only:
        require_comparable(variants)
    speed = SpeedOptions(
        size=parse_size(args.size) if args.size else None,
        warmup=args.warmup,
        repeats=args.repeats,
        proposals=args.proposals,
        synthetic_classes=args.synthetic_classes,
    )
    return Plan(
        variants,
        Path(args.output),
        device=args.device,
        seeds=() if args.speed_only else tuple(range(args.seeds)),
        rounds=args.rounds,
        speed=speed,
        remove_checkpoints=args.remove_checkpoints,
    )


def _scheduler(args: argparse.Namespace) -> Scheduler:
    from frcnn.benchmark.clusters import RayScheduler, SubmititScheduler
    from frcnn.benchmark.scheduler import LocalScheduler

    options = dict(map(_option, args.scheduler_option))
    if args.scheduler == "submitit":
        return SubmititScheduler(Path(args.output) / "submitit", options)
    return RayScheduler(options) if args.scheduler == "ray" else LocalScheduler()


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--scheduler-option is KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
