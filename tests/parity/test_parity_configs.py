"""The YAML of torchvision's detectors says what the parity tests build by hand."""

from __future__ import annotations

from pathlib import Path

import parity_models
import pytest
import torch
from torch import Tensor, nn

from frcnn.experiment import read_config

CONFIGS = Path(__file__).parents[2] / "configs" / "torchvision"
BUILDERS = {
    "fasterrcnn_resnet50_fpn": ("FrozenBN", {"test_post_nms": 1000}),
    "fasterrcnn_resnet50_fpn_v2": ("BN", {"test_post_nms": 1000}),
    "fasterrcnn_mobilenet_v3_large_fpn": ("FrozenBN", {"test_post_nms": 1000}),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("FrozenBN", {}),
}


def settings(model: nn.Module) -> dict[str, str]:
    """Every option that the modules of a model hold, by the module's name."""
    return {
        f"{name}.{key}": repr(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and not isinstance(value, nn.Module | Tensor)
    }


@pytest.mark.parametrize("name", BUILDERS)
def test_yaml_and_python_agree(name):
    norm, options = BUILDERS[name]
    with torch.device("meta"):
        # Frozen parts are left aside: torchvision's are an argument of its functions, not a part of the model.
        config = read_config(CONFIGS / f"{name}.yaml", ["model.backbone.freeze_at=0"])
        from_yaml = config.build().model(90)
        by_hand = getattr(parity_models, name)(norm, **options)
    assert settings(from_yaml) == settings(by_hand)
    shapes = {key: value.shape for key, value in by_hand.state_dict().items()}
    assert {key: value.shape for key, value in from_yaml.state_dict().items()} == shapes
