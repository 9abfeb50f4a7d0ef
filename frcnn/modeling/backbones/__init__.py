"""Backbones: images to feature maps."""

from frcnn.modeling.backbones.mobilenet import MobileNetV2, MobileNetV3
from frcnn.modeling.backbones.resnet import ResNet, ResNetStage
from frcnn.modeling.backbones.resnext import ResNeXt

__all__ = ["MobileNetV2", "MobileNetV3", "ResNeXt", "ResNet", "ResNetStage"]
