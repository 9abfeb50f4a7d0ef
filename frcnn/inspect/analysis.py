"""Parameters, floating point operations and activations of a detector, module by module.

Counted: convolutions, matrix products and attention (torch.utils.flop_counter), deformable convolutions and ROIAlign (here).
One multiply-add is two FLOPs; papers and fvcore often print multiply-adds, which are half of it. Not counted: norms,
activations, additions, resizing, softmax, anchors, box decoding, NMS, ROIPool (comparisons).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
import torchvision  # noqa: F401 - registers the operators that are counted below
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from frcnn.modeling.modes import evaluation_mode
from frcnn.modeling.postprocess import SelectDetections
from frcnn.modeling.roles import Detector, ProposalGenerator
from frcnn.structures import Batch, Detections, Proposals

SAMPLE_FLOPS = 8
"""Of one bilinear sample of one channel: four multiply-adds."""


@dataclass(frozen=True)
class ModuleCounts:
    """What one module costs, its children included.

    Args:
        name: dotted path, empty for the whole detector.
        kind: the class.
        parameters: how many numbers.
        trainable: how many of them are trained.
        flops: of one image.
        activations: numbers that its convolutions and matrix products put out, of one image.
    """

    name: str
    kind: str
    parameters: int
    trainable: int
    flops: int
    activations: int


@dataclass(frozen=True)
class Analysis:
    """The costs of a detector for one image.

    Args:
        modules: the whole detector first, then every module in the order of definition.
        image_size: (h, w) before padding.
        num_proposals: that the ROI heads were given.
        num_detections: that the branches behind the boxes were given.
    """

    modules: Sequence[ModuleCounts]
    image_size: tuple[int, int]
    num_proposals: int
    num_detections: int

    @property
    def total(self) -> ModuleCounts:
        return self.modules[0]


def analyse(
    detector: Detector, image_size: tuple[int, int], *, num_proposals: int = 1000, num_detections: int = 100
) -> Analysis:
    """Runs a detector on one random image and counts.

    What random weights propose says nothing of a trained model: the ROI heads are given `num_proposals` boxes instead, and
    what follows the boxes (masks, keypoints) `num_detections`.

    Args:
        detector: on its device.
        image_size: (h, w) before padding.
        num_proposals: how many boxes the ROI heads see.
        num_detections: how many boxes the branches see.
    """
    parameters = list(detector.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    boxes = stated_boxes(image_size, max(num_proposals, num_detections), device)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *image_size), dtype=torch.uint8, generator=generator).to(device)
    batch = Batch([image], [image_size], [image_size], [0], proposals=[boxes[:num_proposals]])
    counters = {
        "flops": FlopCounterMode(
            display=False, custom_mapping={_DEFORM_CONV: _deform_conv_flops, _ROI_ALIGN: _roi_align_flops}
        ),
        "activations": FlopCounterMode(
            display=False, custom_mapping=dict.fromkeys((*flop_registry, _DEFORM_CONV), _elements)
        ),
    }
    counts: dict[str, dict[str, int]] = {}
    with evaluation_mode(detector), torch.no_grad(), _stated_numbers(detector, boxes, num_proposals, num_detections):
        for name, counter in counters.items():
            with counter:
                detector(batch)
            counts[name] = _by_module(detector, counter)
    modules = [
        ModuleCounts(
            name,
            type(module).__name__,
            sum(p.numel() for p in module.parameters()),
            sum(p.numel() for p in module.parameters() if p.requires_grad),
            counts["flops"][name],
            counts["activations"][name],
        )
        for name, module in detector.named_modules()
    ]
    return Analysis(modules, image_size, num_proposals, num_detections)


def _by_module(detector: nn.Module, counter: FlopCounterMode) -> dict[str, int]:
    """Module name -> count. A list of modules is never called itself: it has what its children have."""
    root, counted = type(detector).__name__, counter.get_flop_counts()
    totals: dict[str, int] = {"": counter.get_total_flops()}
    for name, module in reversed(list(detector.named_modules())):
        if f"{root}.{name}" in counted:
            totals[name] = sum(counted[f"{root}.{name}"].values())
        elif name:
            totals[name] = sum(totals.get(f"{name}.{child}", 0) for child, _ in module.named_children())
    return totals


def stated_boxes(image_size: tuple[int, int], count: int, device: torch.device | str = "cpu") -> Tensor:
    """Boxes [count, 4] of all sizes all over the image (h, w); the same on every call."""
    height, width = image_size
    draws = torch.rand(count, 4, generator=torch.Generator().manual_seed(0))  # centre x, centre y, log size, log shape
    side = min(image_size) * 2.0 ** (-5 * draws[:, 2])  # from the whole image to a 32nd
    ratio = 2.0 ** (draws[:, 3] - 0.5)
    extent = torch.stack((side / ratio, side * ratio), dim=1)  # [count, 2]
    limits = torch.tensor([float(width), float(height)])
    low = (draws[:, :2] * limits - extent / 2).clamp(min=torch.zeros(2), max=limits - 1)
    high = torch.minimum(low + extent.clamp(min=1.0), limits)
    return torch.cat((low, high), dim=1).to(device)


@contextmanager
def _stated_numbers(detector: nn.Module, boxes: Tensor, num_proposals: int, num_detections: int) -> Iterator[None]:
    """Replaces what the proposal generator and the postprocessing put out while the block lasts."""
    proposals = Proposals(
        boxes[:num_proposals],
        torch.zeros(num_proposals, device=boxes.device),
        torch.zeros(num_proposals, dtype=torch.int64, device=boxes.device),
        torch.arange(num_proposals, device=boxes.device),
    )

    def propose(module: nn.Module, args: Any, output: Any) -> Any:
        return [proposals for _ in output[0]], output[1]

    def detect(module: nn.Module, args: Any, output: Detections) -> Detections:
        count = min(num_detections, len(boxes))
        index = torch.zeros(count, dtype=torch.int64, device=boxes.device)
        return replace(
            output, boxes=boxes[:count], scores=torch.ones_like(boxes[:count, 0]), classes=index, index=index
        )

    hooks: dict[type, Callable[..., Any]] = {ProposalGenerator: propose, SelectDetections: detect}
    with ExitStack() as stack:
        for module in detector.modules():
            for role, hook in hooks.items():
                if isinstance(module, role):
                    stack.callback(module.register_forward_hook(hook).remove)
        yield


_DEFORM_CONV = torch.ops.torchvision.deform_conv2d
_ROI_ALIGN = torch.ops.torchvision.roi_align


def _deform_conv_flops(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """A convolution, and a bilinear sample for every input of every output position."""
    batch, out_channels, height, width = out_shape
    _, in_channels_per_group, *kernel = weight
    positions = batch * height * width * prod(kernel)
    return positions * (2 * out_channels * in_channels_per_group + SAMPLE_FLOPS * x[1])


def _roi_align_flops(x: Tensor, rois: Tensor, scale: float, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """A bilinear sample of every channel; sampling_ratio 0 takes one for each pixel of the map that a cell is wide or high."""
    cells_high, cells_wide, sampling_ratio, *_ = args
    if sampling_ratio > 0:
        samples = len(rois) * cells_high * cells_wide * sampling_ratio**2
    else:
        extent = (rois[:, 3:] - rois[:, 1:3]) * scale  # [R, 2] width and height on the map
        per_cell = (extent / extent.new_tensor([cells_wide, cells_high])).ceil().clamp(min=0)
        samples = int(per_cell.prod(dim=1).sum()) * cells_high * cells_wide
    return samples * x.shape[1] * SAMPLE_FLOPS


_roi_align_flops._get_raw = True  # type: ignore[attr-defined]  # how FlopCounterMode knows that it wants tensors


def _elements(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    shape = out_shape if isinstance(out_shape, torch.Size) else out_shape[0]  # attention has further outputs
    return prod(shape)
