"""ROIAlign whose backward pass uses every core of a CPU: torchvision's kernel runs it in one thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torchvision.ops
from torch import Tensor
from torch.autograd.function import once_differentiable


def roi_align(
    feature: Tensor, rois: Tensor, resolution: int, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Averages bilinear samples in each cell of each box; torchvision's function, to the last bit, gradient too.

    Args:
        feature: [B, C, H, W] float32.
        rois: [n, 5] image index and box in image pixels, image after image.
        resolution: cells along each side.
        scale: pixels of the map per pixel of the image.
        sampling_ratio: samples along each side of a cell; 0 is adaptive.
        aligned: a pixel's value lies at its centre.

    Returns:
        [n, C, resolution, resolution].
    """
    learns = feature.device.type == "cpu" and torch.is_grad_enabled() and feature.requires_grad
    if not learns or torch.get_num_threads() == 1 or len(feature) == 1 or torch.compiler.is_compiling():
        return torchvision.ops.roi_align(feature, rois, resolution, scale, sampling_ratio, aligned)
    return _ThreadedBackward.apply(feature, rois, resolution, scale, sampling_ratio, aligned)


class _ThreadedBackward(torch.autograd.Function):
    """The images' gradients do not touch each other: each thread makes those of some images, in the usual order."""

    @staticmethod
    def forward(
        ctx: Any, feature: Tensor, rois: Tensor, resolution: int, scale: float, sampling_ratio: int, aligned: bool
    ) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.shape = feature.shape
        ctx.options = (resolution, scale, sampling_ratio, aligned)
        return torchvision.ops.roi_align(feature, rois, resolution, scale, sampling_ratio, aligned)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rois,) = ctx.saved_tensors
        num_images, channels, height, width = ctx.shape
        resolution, scale, sampling_ratio, aligned = ctx.options
        grad = grad.contiguous()
        rows = torch.searchsorted(rois[:, 0].contiguous(), torch.arange(num_images + 1.0)).tolist()

        def of_images(first: int, last: int) -> Tensor:
            part = slice(rows[first], rows[last])
            moved = rois[part] - rois.new_tensor([first, 0, 0, 0, 0])
            size = (resolution, resolution, last - first, channels, height, width)
            return torch.ops.torchvision._roi_align_backward(grad[part], moved, scale, *size, sampling_ratio, aligned)

        ends = _balanced(rows, torch.get_num_threads())
        with ThreadPoolExecutor(max_workers=len(ends) - 1) as threads:
            parts = list(threads.map(of_images, ends[:-1], ends[1:]))
        return torch.cat(parts), None, None, None, None, None


def _balanced(rows: list[int], num_parts: int) -> list[int]:
    """Where to cut the images, 0 to B, so that each part has about as many boxes.

    Args:
        rows: [B + 1], the first row of each image, and the number of rows.
        num_parts: at most so many parts.
    """
    goals = [rows[-1] * part / num_parts for part in range(1, num_parts)]
    cuts = {min(range(len(rows)), key=lambda image: abs(rows[image] - goal)) for goal in goals}
    return sorted({0, *cuts, len(rows) - 1})
