"""One step of training of a whole detector with each backbone, at the least size: losses, gradients, what is frozen."""

from functools import partial

import pytest
import torch

from frcnn.modeling.backbones import (
    ConvNeXt,
    EfficientNet,
    MobileNetV2,
    MobileNetV3,
    RegNet,
    ResNet,
    ResNeXt,
    SwinTransformer,
    TorchvisionBackbone,
    ViT,
)
from frcnn.modeling.backbones.deformable import Deformable
from frcnn.modeling.necks import FPN, SimpleFeaturePyramid

SMALL_FPN = partial(FPN, out_channels=32)
SHUFFLE_NODES = {"c2": "maxpool", "c3": "stage2", "c4": "stage3", "c5": "stage4"}

# name -> backbone, neck, and of its parameters the beginnings of names: one part that is frozen, the first that learns
CASES = {
    "ResNeXt": (
        lambda: ResNeXt(depth=50, groups=4, width_per_group=16, stem_channels=16, norm="BN", freeze_at=2),
        SMALL_FPN,
        ("stem.", "res3.0."),
    ),
    "wide ResNet-D": (
        lambda: ResNet(
            depth=50, width_per_group=128, stem="3x3", shortcut="pool", stem_channels=16, norm="BN", freeze_at=1
        ),
        SMALL_FPN,
        ("stem.", "res2.0."),
    ),
    "deformable ResNet": (
        lambda: ResNet(depth=50, deformable=Deformable(), stem_channels=16, norm="BN", freeze_at=2),
        SMALL_FPN,
        ("res2.", "res3.0.conv2.offset."),
    ),
    "RegNet": (lambda: RegNet(model="x_400mf", freeze_at=2), SMALL_FPN, ("features.0.", "features.2.block2-0.")),
    "MobileNetV2": (
        lambda: MobileNetV2(freeze_at=2, out_features=("c2", "c3", "c4", "c5")),
        SMALL_FPN,
        ("features.0.", "features.4."),
    ),
    "MobileNetV3": (
        lambda: MobileNetV3(size="small", freeze_at=1, out_features=("c2", "c3", "c4", "c5")),
        SMALL_FPN,
        ("features.0.", "features.1."),
    ),
    "EfficientNet": (lambda: EfficientNet(model="b0", freeze_at=2), SMALL_FPN, ("features.0.", "features.3.0.")),
    "ConvNeXt": (lambda: ConvNeXt(freeze_at=1), SMALL_FPN, ("features.0.", "features.2.1.")),
    "Swin": (lambda: SwinTransformer(freeze_at=1), SMALL_FPN, ("features.0.", "features.2.reduction.")),
    "ViT": (
        lambda: ViT(width=32, depth=3, num_heads=2, window_size=3, global_blocks=(1,), drop_path=0.0, freeze_at=2),
        partial(SimpleFeaturePyramid, out_channels=32),
        ("patch_embed.", "blocks.1.attn."),
    ),
    "torchvision": (
        lambda: TorchvisionBackbone(model="shufflenet_v2_x0_5", nodes=SHUFFLE_NODES, frozen=("conv1",)),
        SMALL_FPN,
        ("network.conv1.", "network.stage2.0."),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_step(name, tiny_detector, tiny_batch):
    build, neck, (frozen, first) = CASES[name]
    torch.manual_seed(0)
    detector = tiny_detector("standard", "random", backbone=build(), necks=[neck]).train()
    losses = detector(tiny_batch).losses
    assert {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"} <= set(losses)
    assert all(loss.isfinite() for loss in losses.values())
    sum(loss for key, loss in losses.items() if key.startswith("loss")).backward()

    backbone = dict(detector.backbone.named_parameters())
    assert all(
        (p.grad is None) == (not p.requires_grad) for p in backbone.values()
    )  # no parameter is there for nothing
    assert not any(p.requires_grad for key, p in backbone.items() if key.startswith(frozen))
    grads = [p.grad for key, p in backbone.items() if key.startswith(first)]
    assert grads and all(grad is not None and grad.isfinite().all() for grad in grads)
    assert any(grad.any() for grad in grads)


@pytest.mark.parametrize("name", ["deformable ResNet", "ViT"])
def test_the_exported_backbone_equals_the_eager_one(name):
    backbone = CASES[name][0]().eval()
    first, second = torch.randn(2, 1, 3, 80, 112, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(backbone, (first,), strict=False).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(second), backbone(second))
