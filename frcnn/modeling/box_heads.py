"""Box heads: from pooled features to the vector that the box predictor reads."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.roles import BOX_HEADS, BoxHead


@BOX_HEADS.register
class TwoMLPHead(BoxHead):
    """Two fully connected layers, each with a ReLU (Fast R-CNN, FPN).

    Args:
        width: of both layers.
        init: xavier draws the weights uniformly with variance 1 / inputs and zeroes the biases (Detectron);
            pytorch leaves them as `nn.Linear` draws them (torchvision).
    """

    def __init__(
        self, in_channels: int, resolution: int, *, width: int = 1024, init: Literal["xavier", "pytorch"] = "xavier"
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.fc1 = nn.Linear(in_channels * resolution**2, width)
        self.fc2 = nn.Linear(width, width)
        self.out_channels = width
        if init == "xavier":
            caffe2_xavier_(self.fc1)
            caffe2_xavier_(self.fc2)

    def forward(self, roi_features: Tensor) -> Tensor:
        """[R, C, h, w] -> [R, width]."""
        x = F.relu(self.fc1(roi_features.flatten(start_dim=1)))
        return F.relu(self.fc2(x))


@BOX_HEADS.register
class ConvBoxHead(BoxHead):
    """3x3 convolutions, then fully connected layers; four and one are "4conv1fc" (Group Normalization, section 4.2).

    Args:
        num_convs: how many 3x3 convolutions.
        conv_channels: their width.
        num_fcs: how many fully connected layers follow.
        fc_width: their width.
        norm: norm layer behind each convolution, or null for none.
        norm_eps: added to the norm's variance.
    """

    def __init__(
        self,
        in_channels: int,
        resolution: int,
        *,
        num_convs: int = 4,
        conv_channels: int = 256,
        num_fcs: int = 1,
        fc_width: int = 1024,
        norm: NormName | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if num_convs < 0 or num_fcs < 0:
            raise ValueError(f"num_convs and num_fcs must be 0 or more, got {num_convs} and {num_fcs}")
        if conv_channels < 1 or fc_width < 1:
            raise ValueError(f"conv_channels and fc_width must be at least 1, got {conv_channels} and {fc_width}")
        self.convs = nn.Sequential()
        for _ in range(num_convs):
            conv = ConvNorm(in_channels, conv_channels, 3, norm=norm, norm_eps=norm_eps, relu=True)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.convs.append(conv)
            in_channels = conv_channels
        in_channels *= resolution**2
        self.fcs = nn.Sequential()
        for _ in range(num_fcs):
            linear = nn.Linear(in_channels, fc_width)
            caffe2_xavier_(linear)
            self.fcs.extend((linear, nn.ReLU()))
            in_channels = fc_width
        self.out_channels = in_channels

    def forward(self, roi_features: Tensor) -> Tensor:
        """[R, C, h, w] -> [R, out_channels]."""
        x = self.convs(roi_features)  # [R, conv_channels, h, w]
        return self.fcs(x.flatten(start_dim=1))


def caffe2_xavier_(layer: nn.Linear) -> None:
    """What Caffe2 calls Xavier: uniform with variance 1 / inputs; biases 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    nn.init.zeros_(layer.bias)
