"""GRoIE: features of a box from all levels at once (https://arxiv.org/abs/2004.13665)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from frcnn.modeling.non_local import NonLocalBlock
from frcnn.modeling.poolers import with_image_index
from frcnn.modeling.roles import ROI_POOLERS, Features, FeatureShapes, ROIPooler
from frcnn.ops.roi_align import roi_align


@ROI_POOLERS.register
class GRoIE(ROIPooler):
    """Pools every box from every level, and sums: no rule says which level suits a box.

    Each level's features pass one convolution (the same for all levels) before the sum, and a last module after it. The
    paper has two attention modules to choose from for the last; here it is a non-local block.

    Args:
        resolution: cells along each side of the output.
        sampling_ratio: samples along each side of a cell; 0 takes as many as the cell covers pixels of the feature map.
        aligned: shifts by half a pixel, so that a pixel's value lies at its centre.
        pre_kernel: side of the convolution before the sum; null leaves it out.
        post: what follows the sum: non_local (every cell looks at every other, https://arxiv.org/abs/1711.07971), conv
            (3x3, with a ReLU) or null.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        resolution: int = 7,
        sampling_ratio: int = 0,
        aligned: bool = True,
        pre_kernel: int | None = 5,
        post: Literal["non_local", "conv"] | None = "non_local",
    ) -> None:
        super().__init__()
        widths = {shape.channels for shape in feature_shapes.values()}
        if len(widths) != 1:
            raise ValueError(f"the pooled levels must be equally wide to be summed, got {dict(feature_shapes)}")
        if resolution < 1:
            raise ValueError(f"resolution must be at least 1, got {resolution}")
        if sampling_ratio < 0:
            raise ValueError(f"sampling_ratio must be 0 (adaptive) or more, got {sampling_ratio}")
        if pre_kernel is not None and (pre_kernel < 1 or pre_kernel % 2 == 0):
            raise ValueError(f"pre_kernel must be odd and at least 1, got {pre_kernel}")
        self.strides = {name: shape.stride for name, shape in feature_shapes.items()}
        self.out_channels = widths.pop()
        self.resolution = resolution
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.pre = nn.Identity() if pre_kernel is None else _conv_relu(self.out_channels, pre_kernel)
        self.post = _make_post(post, self.out_channels)

    def forward(self, features: Features, boxes_per_image: Sequence[Tensor]) -> Tensor:
        """Pools the boxes of a batch.

        Args:
            features: maps [B, C, H, W] by name; only the pooled ones are read.
            boxes_per_image: B x [r, 4].

        Returns:
            [R, C, resolution, resolution], image after image.
        """
        rois = with_image_index(boxes_per_image)  # [R, 5]
        pooled = [self.pre(self.pool(features[name], rois, 1.0 / stride)) for name, stride in self.strides.items()]
        return self.post(torch.stack(pooled).sum(dim=0))

    def pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        """feature [B, C, H, W], rois [R, 5] (image index, box in image pixels) -> [R, C, resolution, resolution]."""
        pooled = roi_align(feature.float(), rois, self.resolution, scale, self.sampling_ratio, self.aligned)
        return pooled.to(feature.dtype)  # as in MultiLevelPooler: pooled in float32, handed on as it came


def _conv_relu(channels: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.ReLU())


def _make_post(name: str | None, channels: int) -> nn.Module:
    if name is None:
        return nn.Identity()
    if name == "conv":
        return _conv_relu(channels, 3)
    if name == "non_local":
        return NonLocalBlock(channels, inner_channels=max(1, channels // 2), scale=None)
    raise ValueError(f"post must be non_local, conv or null, got {name!r}")
