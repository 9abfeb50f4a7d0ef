"""The analysis of a detector as text: a tree of modules with what each costs."""

from __future__ import annotations

from frcnn.inspect.analysis import Analysis, ModuleCounts

UNIT = "GFLOPs: 1 multiply-add = 2 FLOPs (many papers print multiply-adds, half of it)"
COUNTED = (
    "counted: convolutions, matrix products, attention, deformable convolutions (a convolution and 8 FLOPs for each "
    "bilinear sample), ROIAlign (8 FLOPs for each sample of a channel); not counted: norms, activations, additions, "
    "resizing, box decoding, NMS, ROIPool"
)


def analysis_table(analysis: Analysis, depth: int = 3) -> str:
    """A line for each module that has parameters or computes something, then what the numbers mean.

    Args:
        analysis: from `analyse`.
        depth: how deep the tree is shown; 1 is backbone, necks, proposal generator and ROI heads.
    """
    total = analysis.total
    shown = [module for module in analysis.modules if _level(module) <= depth and (module.parameters or module.flops)]
    labels = ["  " * _level(module) + (module.name.rpartition(".")[2] or "whole detector") for module in shown]
    width = max(map(len, labels))
    kinds = max(len(module.kind) for module in shown)
    numbers = f"{'parameters':>12}  {'trainable':>12}  {'GFLOPs':>9}  {'share':>6}  {'activations':>12}"
    header = f"{'module':<{width}}  {'class':<{kinds}}  {numbers}"
    lines = [header, "-" * len(header)]
    for label, module in zip(labels, shown, strict=True):
        share = module.flops / total.flops if total.flops else 0.0
        lines.append(
            f"{label:<{width}}  {module.kind:<{kinds}}  {module.parameters:>12,}  {module.trainable:>12,}  "
            f"{module.flops / 1e9:>9.3f}  {share:>6.1%}  {module.activations:>12,}"
        )
    return "\n".join([*lines, "", *analysis_notes(analysis)])


def analysis_notes(analysis: Analysis) -> list[str]:
    """What the numbers are of: image, proposals, unit."""
    total = analysis.total
    height, width = analysis.image_size
    return [
        f"{total.parameters:,} parameters: {total.trainable:,} trainable, {total.parameters - total.trainable:,} frozen",
        f"one image of {height}x{width} (h x w), before padding; ROI heads at {analysis.num_proposals:,} proposals, "
        f"what follows the boxes at {analysis.num_detections:,} detections",
        UNIT,
        COUNTED,
        "activations: numbers that convolutions and matrix products put out",
    ]


def _level(module: ModuleCounts) -> int:
    return module.name.count(".") + 1 if module.name else 0
