"""Any classification network of torchvision as a backbone, cut at nodes of its graph."""

from __future__ import annotations

import copy

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from frcnn.modeling.backbones.adapters import freeze_named, nearest
from frcnn.modeling.layers import NormName, with_norm
from frcnn.modeling.roles import BACKBONES, Backbone
from frcnn.structures import FeatureShape

_PROBE_SIDE = 256


@BACKBONES.register
class TorchvisionBackbone(Backbone):
    """A classification network of torchvision; what lies behind the last node is not kept.

    Its parameters keep torchvision's names behind `network.`; weights of torchvision, by init_weights, find their places.
    Networks that take images of one size only (ViT, MaxViT) cannot be used; for some others there are backbones with
    more options: ResNet, RegNet, EfficientNet, ConvNeXt, SwinTransformer, ViT.

    Args:
        model: torchvision's name of the network, such as densenet121.
        nodes: name of a feature map -> the node of torchvision's graph that makes it, fine to coarse; a module stands
            for its output: {c3: features.denseblock2, c4: features.denseblock3, c5: features.norm5}. FPN takes the
            numbers of its levels from these names.
        norm: what takes the place of batch norms: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN, GN or
            LN; null leaves them.
        norm_eps: added to the norms' variance; null is what torchvision adds.
        frozen: modules that do not learn, by torchvision's names, such as [features.conv0, features.norm0]; their batch
            norms become FrozenBN.
    """

    def __init__(
        self,
        *,
        model: str,
        nodes: dict[str, str],
        norm: NormName | None = "FrozenBN",
        norm_eps: float | None = None,
        frozen: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if model not in torchvision.models.list_models(module=torchvision.models):
            choices = torchvision.models.list_models(module=torchvision.models)
            raise ValueError(f"model: torchvision has no classifier {model!r}; {nearest(model, choices)}")
        if not nodes:
            raise ValueError("nodes must name at least one node of the network")
        network = _extractor(model, nodes)
        self.feature_shapes = _shapes(model, copy.deepcopy(network).to("meta"), nodes)
        self.size_divisibility = max(shape.stride for shape in self.feature_shapes.values())
        if norm is not None:
            with_norm(network, norm, norm_eps)
        freeze_named(network, frozen)
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.network(images)


def _extractor(model: str, nodes: dict[str, str]) -> nn.Module:
    network = _build(model)
    try:
        return create_feature_extractor(
            network, {node: name for name, node in nodes.items()}, suppress_diff_warning=True
        )
    except ValueError as error:
        known = get_graph_node_names(network, suppress_diff_warning=True)[1]
        for node in nodes.values():
            modules = dict.fromkeys(".".join(name.split(".")[: node.count(".") + 1]) for name in known)
            if node not in modules:
                raise ValueError(f"nodes: {model} has no node {node!r}; {nearest(node, modules)}") from error
        raise


def _build(model: str) -> nn.Module:
    try:
        return torchvision.models.get_model(model, weights=None)
    except NotImplementedError:  # RegNet computes its widths with tensors, which the meta device does not
        with torch.device("cpu"):
            network = torchvision.models.get_model(model, weights=None)
        return network.to(torch.get_default_device())


def _shapes(model: str, network: nn.Module, nodes: dict[str, str]) -> dict[str, FeatureShape]:
    """Widths and strides, found on the meta device with an image of 256 pixels."""
    try:
        maps = network.eval()(torch.empty(1, 3, _PROBE_SIDE, _PROBE_SIDE, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"model: {model} does not take images of {_PROBE_SIDE} pixels: {error}") from error
    shapes = {}
    for name in nodes:
        made = maps[name]
        if made.ndim != 4 or made.shape[-1] != made.shape[-2] or _PROBE_SIDE % made.shape[-1]:
            raise ValueError(
                f"nodes: {nodes[name]!r} of {model} makes {list(made.shape)} of an image of {_PROBE_SIDE} pixels, which "
                "is no map of a whole stride"
            )
        shapes[name] = FeatureShape(made.shape[1], _PROBE_SIDE // made.shape[-1])
    return shapes
