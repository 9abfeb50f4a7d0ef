"""Weights for the adapters, backbones that keep the names of another library behind `backbone.network.`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from frcnn.checkpoint.kinds import Kind
from frcnn.checkpoint.sources import Weights

_PREFIX = "backbone.network."


def named_as_in(model: nn.Module, weights: Weights) -> Mapping[str, Tensor]:
    """Weights by our names, or for a model whose backbone is an adapter, by the names that it keeps.

    Args:
        model: to load into.
        weights: of any kind; those of frcnn have the model's names.

    Returns:
        name -> tensor; tensors that the model does not have keep the names of their file.
    """
    wanted = model.state_dict().keys()
    if weights.kind is Kind.FRCNN or not any(name.startswith(_PREFIX) for name in wanted):
        return weights.state_dict
    theirs = weights.state_dict if weights.conversion is None else weights.conversion.theirs
    return {
        next((known for known in _candidates(name) if known in wanted), name): tensor for name, tensor in theirs.items()
    }


def _candidates(name: str) -> Iterator[str]:
    yield _PREFIX + name
    yield _PREFIX + re.sub(r"(denselayer\d+\.(?:norm|conv))\.", r"\1", name)  # torchvision's files of DenseNets
    yield _PREFIX + "model." + name  # timm's wrapper of networks that give their intermediate maps themselves
    yield _PREFIX + re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name)  # timm's wrapper that takes rows of layers apart
