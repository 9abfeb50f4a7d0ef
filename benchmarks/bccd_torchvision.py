"""Our detector beside torchvision's on blood cells: same backbone, neck, anchors, data, batches, optimizer, schedule.

    python benchmarks/bccd_torchvision.py --seeds 0 1 2          train both with every seed, then print the table
    python benchmarks/bccd_torchvision.py --speed 20             time both in one process, alternating; nothing is trained

Every run is a process of its own and leaves its result in --output; a run whose result is there is not repeated. Both
detectors go through the same loop, loader and evaluator of this framework; torchvision's stands behind a thin adapter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from frcnn.assembly import build_model, build_test_sets, build_train_loader
from frcnn.engine.optim import scale_learning_rate
from frcnn.engine.trainer import Trainer, total_loss
from frcnn.experiment import Experiment, read_config
from frcnn.precision import autocast
from frcnn.structures import Batch, Detections, Output

CONFIG = Path(__file__).parent.parent / "configs" / "bccd" / "faster_rcnn_R_18_FPN_small.yaml"
ANCHOR_SIZES = ((16,), (32,), (64,), (128,), (256,))  # as in the config
METRICS = ("AP", "AP50", "AP75")


class TorchvisionDetector(nn.Module):
    """torchvision's FasterRCNN behind our contract: Batch -> Output.

    Its own resizing is skipped in training (as torchvision's reference script does) and is the identity in evaluation, because
    the loader has resized the images.
    """

    def __init__(self, num_classes: int, out_channels: int, post_nms_top_n: dict[str, int]) -> None:
        super().__init__()
        layers = {f"layer{i + 1}": str(i) for i in range(4)}
        backbone = BackboneWithFPN(resnet18(weights=None), layers, [64, 128, 256, 512], out_channels)
        self.detector = FasterRCNN(
            backbone,
            num_classes + 1,
            min_size=320,
            max_size=640,
            rpn_anchor_generator=AnchorGenerator(ANCHOR_SIZES, ((0.5, 1.0, 2.0),) * len(ANCHOR_SIZES)),
            rpn_post_nms_top_n_train=post_nms_top_n["train"],
            rpn_post_nms_top_n_test=post_nms_top_n["test"],
            _skip_resize=True,
        )

    def forward(self, batch: Batch) -> Output:
        images = [image.float() / 255 for image in batch.images]
        if self.training:
            assert batch.targets is not None
            targets = [{"boxes": t.boxes, "labels": t.classes + 1} for t in batch.targets]
            return Output(None, self.detector(images, targets))
        found = self.detector(images)
        sizes = zip(found, batch.image_sizes, batch.original_sizes, strict=True)
        return Output([_in_original_pixels(*triple) for triple in sizes], {})


def _in_original_pixels(found: dict[str, Tensor], seen: tuple[int, int], original: tuple[int, int]) -> Detections:
    scale = torch.tensor([original[1] / seen[1], original[0] / seen[0]]).repeat(2)
    index = torch.arange(len(found["boxes"]))
    return Detections(found["boxes"] * scale, found["scores"], found["labels"] - 1, index)


def build(name: str, experiment: Experiment, seed: int) -> nn.Module:
    """One of the two detectors, its weights drawn from the seed."""
    if name == "frcnn":
        return build_model(
            replace(experiment, seed=seed), experiment.data.train.dataset.categories, torch.device("cpu")
        )
    torch.manual_seed(seed)
    return TorchvisionDetector(len(experiment.data.train.dataset.categories), 64, {"train": 1000, "test": 500})


def train_one(name: str, seed: int, folder: Path, iterations: int, given: Sequence[str]) -> None:
    """Trains and evaluates one detector with one seed, and writes result.json."""
    overrides = [
        f"seed={seed}",
        f"trainer.duration={iterations}it",
        "hooks.evaluate.every=null",
        "hooks.pictures=null",
        *given,
    ]
    experiment = read_config(CONFIG, overrides).build()
    categories = experiment.data.train.dataset.categories
    model = build(name, experiment, seed)
    optimizer = experiment.optimizer(model)
    scale_learning_rate(optimizer, experiment.data.train.batch_size)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        model,
        optimizer,
        experiment.schedule,
        build_train_loader(experiment, start_batch=0, pin_memory=False),
        build_test_sets(experiment, categories, with_targets=False),
        {name: hook for name, hook in experiment.hooks.items() if name in ("log", "nan_guard")},
        experiment.trainer,
        device=torch.device("cpu"),
        folder=folder,
        seed=seed,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    if trainer.iteration < iterations:
        sys.exit(f"{name}, seed {seed}: {trainer.stop_reason}; no result")
    metrics = trainer.evaluate().metrics
    result = {"detector": name, "seed": seed, "iterations": iterations, "train_seconds": round(seconds, 1), **metrics}
    (folder / "result.json").write_text(json.dumps(result, indent=1))


def compare_speed(rounds: int, overrides: Sequence[str]) -> None:
    """Seconds a training iteration of both on the same batches, alternating in one process; prints medians and their ratio."""
    experiment = read_config(CONFIG, overrides).build()
    batches = iter(build_train_loader(experiment, start_batch=0, pin_memory=False))
    models = {name: build(name, experiment, 0).train() for name in ("frcnn", "torchvision")}
    optimizers = {name: experiment.optimizer(model) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 2):
        batch = next(batches)
        for name, model in models.items():
            started = time.perf_counter()
            with autocast(experiment.trainer.amp, torch.device("cpu")):
                losses = model(batch).losses
            optimizers[name].zero_grad()
            total_loss(losses).backward()
            optimizers[name].step()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values[2:]) for name, values in seconds.items()}
    ratios = [ours / theirs for ours, theirs in zip(seconds["frcnn"][2:], seconds["torchvision"][2:], strict=True)]
    print(
        f"seconds a training iteration, median of {rounds} ({torch.get_num_threads()} threads, amp {experiment.trainer.amp}): "
        f"frcnn {medians['frcnn']:.3f}, torchvision {medians['torchvision']:.3f}; "
        f"ratio of each pair: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}"
    )


def table(results: Sequence[dict]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines = ["| detector | seeds | " + " | ".join(METRICS) + " |", "|---|---|" + "---|" * len(METRICS)]
    for name in ("torchvision", "frcnn"):
        rows = [r for r in results if r["detector"] == name]
        if not rows:
            continue
        cells = []
        for metric in METRICS:
            values = [r[f"val/bbox/{metric}"] for r in rows]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread} ({', '.join(f'{v:.1f}' for v in values)})")
        lines.append(f"| {name} | {', '.join(str(r['seed']) for r in rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--detectors", nargs="+", default=["torchvision", "frcnn"], choices=["torchvision", "frcnn"])
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("runs/bccd_torchvision"))
    parser.add_argument("--speed", type=int, metavar="ROUNDS", help="only time ROUNDS iterations of both")
    parser.add_argument(
        "--one", action="store_true", help="train the first detector with the first seed in this process"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of our config")
    args = parser.parse_intermixed_args()
    if args.speed:
        compare_speed(args.speed, args.overrides)
        return
    if args.one:
        train_one(args.detectors[0], args.seeds[0], args.output, args.iterations, args.overrides)
        return
    for seed in args.seeds:
        for name in args.detectors:
            folder = args.output / f"{name}_{seed}"
            if not (folder / "result.json").exists():
                command = [sys.executable, __file__, "--one", "--detectors", name, "--seeds", str(seed)]
                subprocess.run(
                    [*command, "--output", str(folder), "--iterations", str(args.iterations), *args.overrides],
                    check=True,
                )
    results = [json.loads(path.read_text()) for path in sorted(args.output.glob("*/result.json"))]
    print(table(results))


if __name__ == "__main__":
    main()
