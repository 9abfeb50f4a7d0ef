"""Backbones: images to feature maps."""

from frcnn.modeling.backbones.convnext import ConvNeXt
from frcnn.modeling.backbones.efficientnet import EfficientNet
from frcnn.modeling.backbones.mobilenet import MobileNetV2, MobileNetV3
from frcnn.modeling.backbones.regnet import RegNet
from frcnn.modeling.backbones.resnet import ResNet, ResNetStage
from frcnn.modeling.backbones.resnext import ResNeXt
from frcnn.modeling.backbones.swin import SwinTransformer
from frcnn.modeling.backbones.timm_adapter import TimmBackbone
from frcnn.modeling.backbones.torchvision_adapter import TorchvisionBackbone
from frcnn.modeling.backbones.vit import ViT

__all__ = [
    "ConvNeXt",
    "EfficientNet",
    "MobileNetV2",
    "MobileNetV3",
    "RegNet",
    "ResNeXt",
    "ResNet",
    "ResNetStage",
    "SwinTransformer",
    "TimmBackbone",
    "TorchvisionBackbone",
    "ViT",
]
