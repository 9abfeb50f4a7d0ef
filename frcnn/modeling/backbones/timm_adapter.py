"""Any network of timm (https://github.com/huggingface/pytorch-image-models) with feature maps as a backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from frcnn.modeling.backbones.adapters import freeze_named, nearest
from frcnn.modeling.backbones.staged import FeatureName
from frcnn.modeling.features import check_out_features
from frcnn.modeling.roles import BACKBONES, Backbone
from frcnn.structures import FeatureShape


@BACKBONES.register
class TimmBackbone(Backbone):
    """A network of timm, by its `features_only`; timm is an extra: pip install "frcnn[timm]".

    Its parameters keep timm's names behind `network.`; a file of timm's weights, by init_weights, finds its places.
    Nothing is downloaded here.

    Args:
        model: timm's name of the network, such as resnet50d or convnextv2_tiny.
        out_features: the feature maps that are returned, by stride: c1 to c5 have strides 2 to 32. Where a network has
            several maps of one stride, it is the last one.
        norm: what becomes of batch norms: FrozenBN (fixed statistics, for pretrained weights), BN (they stay) or SyncBN.
        frozen: modules that do not learn, by timm's names, such as [conv1, bn1, layer1]; their batch norms become
            FrozenBN.
        arguments: further arguments of timm.create_model, such as {drop_path_rate: 0.1} or, for Swin, {strict_img_size:
            false}.
    """

    def __init__(
        self,
        *,
        model: str,
        out_features: tuple[FeatureName, ...] = ("c2", "c3", "c4", "c5"),
        norm: Literal["FrozenBN", "BN", "SyncBN"] = "FrozenBN",
        frozen: tuple[str, ...] = (),
        arguments: dict[str, bool | int | float | str] = {},  # noqa: B006 (never changed)
    ) -> None:
        super().__init__()
        with torch.device("meta"):
            info = _network(model, arguments).feature_info
        index_of = {
            f"c{stride.bit_length() - 1}": index
            for index, stride in zip(info.out_indices, info.reduction(), strict=True)
        }
        check_out_features(out_features, list(index_of))
        self.names = sorted(out_features)
        network = _network(model, {**arguments, "out_indices": tuple(index_of[name] for name in self.names)})
        self.feature_shapes = {
            name: FeatureShape(channels, stride)
            for name, channels, stride in zip(
                self.names, network.feature_info.channels(), network.feature_info.reduction(), strict=True
            )
        }
        self.size_divisibility = max(shape.stride for shape in self.feature_shapes.values())
        network = _with_norm(network, norm)
        freeze_named(network, frozen, _freeze)
        self.channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.network(images)
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2).contiguous() for x in maps]
        return dict(zip(self.names, maps, strict=True))


def _with_norm(network: nn.Module, norm: str) -> nn.Module:
    """timm's batch norms may have their activation inside, so that only timm can exchange them."""
    from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d

    makers: dict[str, Callable[[nn.Module], nn.Module]] = {
        "FrozenBN": freeze_batch_norm_2d,
        "BN": lambda module: module,
        "SyncBN": convert_sync_batchnorm,
    }
    if norm not in makers:
        raise ValueError(f"norm must be one of {', '.join(makers)}, got {norm!r}")
    return makers[norm](network)


def _freeze(module: nn.Module) -> nn.Module:
    return _with_norm(module.requires_grad_(False), "FrozenBN")


def _network(model: str, arguments: dict[str, Any]) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"model: {model!r} is a network of timm, which is not installed: pip install timm") from error
    if not timm.is_model(model):
        raise ValueError(f"model: timm {timm.__version__} has no {model!r}; {nearest(model, timm.list_models())}")
    try:
        return timm.create_model(model, pretrained=False, features_only=True, **arguments)
    except (AttributeError, AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"model: timm cannot make feature maps of {model!r}: {error}") from error
