"""The YAML of torchvision's and detectron2's detectors says what the parity tests build by hand."""

from __future__ import annotations

from pathlib import Path

import parity_models
import pytest
import torch
from torch import Tensor, nn

from frcnn.experiment import read_config

CONFIGS = Path(__file__).parents[2] / "configs"
TORCHVISION = {
    "fasterrcnn_resnet50_fpn": ("FrozenBN", {"test_post_nms": 1000}),
    "fasterrcnn_resnet50_fpn_v2": ("BN", {"test_post_nms": 1000}),
    "fasterrcnn_mobilenet_v3_large_fpn": ("FrozenBN", {"test_post_nms": 1000}),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("FrozenBN", {}),
    "maskrcnn_resnet50_fpn": ("FrozenBN", {"test_post_nms": 1000}),
    "maskrcnn_resnet50_fpn_v2": ("BN", {"test_post_nms": 1000}),
    "keypointrcnn_resnet50_fpn": ("FrozenBN", {"test_post_nms": 1000}),
}
DETECTRON2 = {
    "faster_rcnn_R_50_FPN_1x": parity_models.detectron2_fpn,
    "faster_rcnn_R_50_C4_1x": parity_models.detectron2_c4,
    "faster_rcnn_R_50_DC5_1x": parity_models.detectron2_dc5,
    "cascade_rcnn_R_50_FPN_1x": parity_models.detectron2_cascade,
}


def settings(model: nn.Module) -> dict[str, str]:
    """Every option that the modules of a model hold, by the module's name."""
    return {
        f"{name}.{key}": repr(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and not isinstance(value, nn.Module | Tensor)
    }


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def build(name: str, num_classes: int, *overrides: str) -> nn.Module:
    return read_config(CONFIGS / f"{name}.yaml", list(overrides)).build().model(num_classes)


@pytest.mark.parametrize(
    ("name", "divisor"),
    [
        ("coco/faster_rcnn_R_50_FPN_1x", 32),
        ("coco/faster_rcnn_R_50_C4_1x", 1),
        ("coco/faster_rcnn_R_50_DC5_1x", 1),
        ("torchvision/fasterrcnn_resnet50_fpn", 32),
        ("notes/faster_rcnn_mobilenet_v2", 32),
    ],
)
def test_images_are_padded_to_a_multiple(name, divisor):
    with torch.device("meta"):
        assert build(name, 3).size_divisibility == divisor


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_yaml_and_python_agree(name):
    norm, options = TORCHVISION[name]
    with torch.device("meta"):
        # Frozen parts are left aside: torchvision's are an argument of its functions, not a part of the model.
        by_hand = getattr(parity_models, name)(norm, **options)
        from_yaml = build(f"torchvision/{name}", by_hand.num_classes, "model.backbone.freeze_at=0")
    assert settings(from_yaml) == settings(by_hand)
    assert shapes(from_yaml) == shapes(by_hand)


@pytest.mark.parametrize("name", DETECTRON2)
def test_detectron2_yaml_and_python_agree(name):
    # Our baselines start from torchvision's ResNet, whose strides are in the 3x3; the golden samplers take everything.
    overrides = ["model.backbone.stride_in_1x1=true"]
    if "C4" in name:
        overrides.append("model.roi_heads.stride_in_1x1=true")
    with torch.device("meta"):
        from_yaml, by_hand = build(f"coco/{name}", 80, *overrides), DETECTRON2[name](80)
    ours, expected = (
        {key: value for key, value in settings(model).items() if ".sampler." not in key}
        for model in (from_yaml, by_hand)
    )
    assert ours == expected
    assert shapes(from_yaml) == shapes(by_hand)
