"""Backbones: images to feature maps."""

from frcnn.modeling.backbones.mobilenet import MobileNetV2, MobileNetV3
from frcnn.modeling.backbones.resnet import ResNet, ResNetStage

__all__ = ["MobileNetV2", "MobileNetV3", "ResNet", "ResNetStage"]
