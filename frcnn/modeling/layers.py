"""Building blocks of backbones, necks and heads: norm layers by name, a convolution with its norm, freezing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

NormName = Literal["FrozenBN", "BN", "SyncBN", "GN", "LN"]


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters never change; its state dict is that of `nn.BatchNorm2d`.

    Args:
        channels: width of the input.
        eps: added to the variance. The Faster R-CNN weights torchvision published first (v1, COCO_V1) need 0.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad and self.eps > 0:  # torch 2.11's batch_norm refuses an eps of 0
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        # With a gradient, batch_norm would keep a copy of x for the backward pass; scaling does not need one. Scale and
        # shift are made in float32, because a small variance overflows in half precision.
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # [C]
        shift = self.bias - self.running_mean * scale  # [C]
        scale, shift = (v.to(x.dtype).reshape(1, -1, 1, 1) for v in (scale, shift))
        return torch.addcmul(shift, x, scale)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights trained with nn.BatchNorm2d count their batches; a frozen norm has no use for the count.
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map [B, C, H, W], at every position by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """torch's group norm, which in torch 2.11 crashes in its backward pass on a channels-last map that needs no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.requires_grad else x.contiguous())


class ChannelsLastNorm(nn.Module):
    """A norm of maps [B, C, H, W] for a map [B, H, W, C], as transformers keep theirs.

    Args:
        norm: for maps with channels second.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def make_norm(name: NormName, channels: int, eps: float = 1e-5) -> nn.Module:
    """A norm layer by its name.

    Args:
        name: FrozenBN (fixed statistics), BN, SyncBN (statistics over all processes), GN (32 groups, or the largest
            number of groups below that divides both 32 and `channels`) or LN (over the channels of each position).
        channels: width of the input.
        eps: added to the variance.

    Raises:
        ValueError: the name is unknown, or eps is negative.
    """
    if eps < 0:
        raise ValueError(f"norm eps must be >= 0, got {eps}")
    makers: dict[str, Callable[[], nn.Module]] = {
        "FrozenBN": lambda: FrozenBatchNorm2d(channels, eps),
        "BN": lambda: nn.BatchNorm2d(channels, eps),
        "SyncBN": lambda: nn.SyncBatchNorm(channels, eps),
        "GN": lambda: GroupNorm(math.gcd(32, channels), channels, eps),
        "LN": lambda: LayerNorm2d(channels, eps),
    }
    if name not in makers:
        raise ValueError(f"norm must be one of {', '.join(makers)}, got {name!r}")
    return makers[name]()


def make_channels_last_norm(name: NormName, channels: int, eps: float = 1e-5) -> nn.Module:
    """A norm layer by its name for maps [B, H, W, C]; arguments as for `make_norm`."""
    norm = make_norm(name, channels, eps)
    return nn.LayerNorm(channels, eps) if name == "LN" else ChannelsLastNorm(norm)


class ConvNorm(nn.Conv2d):
    """A convolution, its norm and its activation; parameters are named `weight`, `bias` and `norm.*`.

    Padding keeps the size (divided by the stride), also with dilation. With a norm there is no bias.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        kernel_size: side of the square kernel.
        stride: step of the kernel.
        dilation: distance between the kernel's taps.
        groups: into how many parts, each convolved by itself, the channels are cut.
        norm: name of the norm layer, or None.
        norm_eps: added to the norm's variance.
        relu: whether a ReLU follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: NormName | None = None,
        norm_eps: float = 1e-5,
        relu: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=norm is None,
        )
        self.norm = make_norm(norm, out_channels, norm_eps) if norm is not None else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self._convolved_in_float32(x) if self._has_wrong_gradient(x) else super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu_(x) if self.relu else x

    def _has_wrong_gradient(self, x: Tensor) -> bool:
        """Whether autocast would give the weight a wrong gradient.

        Where a kernel larger than 1 steps over a map of one column in bfloat16, torch 2.15 gave it NaN or garbage in about
        3 of 4 tries, on a CPU with AVX512-BF16. Maps of two columns, steps of 1, float16 and float32 were always right.
        The coarsest levels of a small image are such maps.
        """
        return (
            self.stride[1] > 1
            and self.kernel_size[1] > 1
            and x.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and x.shape[-1] == 1  # last: a dynamic size is asked only where it matters
        )

    def _convolved_in_float32(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.bfloat16)


def freeze(module: nn.Module) -> nn.Module:
    """Stops a module from learning: no gradient for parameters, fixed statistics for batch norm (of the same names).

    Its blocks are always all there: leaving some out at random would only be noise to what learns behind them.

    Returns:
        the module, or what replaces it if it is itself a batch norm.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, StochasticDepth):
            layer.p = 0.0
    return _replace_batch_norm(module, _frozen)


def with_norm(module: nn.Module, norm: NormName, eps: float | None = None) -> nn.Module:
    """Exchanges the batch norms of a network that another library has built.

    Args:
        module: the network; its other norms stay.
        norm: name of the norm that takes their place.
        eps: added to the variance; None keeps what each batch norm adds.

    Returns:
        the module, or what replaces it if it is itself a batch norm.
    """
    return _replace_batch_norm(module, lambda old: make_norm(norm, old.num_features, old.eps if eps is None else eps))


def _frozen(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> nn.Module:
    frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen


def _replace_batch_norm(module: nn.Module, make: Callable[[Any], nn.Module]) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        return make(module)
    for name, child in module.named_children():
        setattr(module, name, _replace_batch_norm(child, make))
    return module
