"""ResNeXt, wide ResNets, ResNet-D and deformable stages."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from frcnn.checkpoint.torchvision import from_torchvision
from frcnn.modeling.backbones import ResNet, ResNeXt
from frcnn.modeling.backbones.deformable import Deformable, DeformConvNorm
from frcnn.modeling.backbones.resnet_blocks import PooledConvNorm

IMAGES = torch.rand(1, 3, 70, 101, generator=torch.Generator().manual_seed(0))
TINY = {"stem_channels": 16, "norm": "GN", "freeze_at": 0}


def fill_norms(network):
    """Statistics that are not those of a fresh network, so that a forgotten one is seen."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(layer.weight, 0.3, 0.6, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
    return network.eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: ResNeXt(depth=50, width_per_group=4), "resnext50_32x4d"),
        (lambda: ResNet(depth=50, width_per_group=128), "wide_resnet50_2"),
    ],
    ids=["resnext50_32x4d", "wide_resnet50_2"],
)
def test_it_computes_what_torchvision_computes(build, name):
    theirs = fill_norms(getattr(torchvision.models, name)(weights=None))
    converted = from_torchvision(theirs.state_dict())
    assert converted.unused == [] and set(converted.left_out) == {"fc.weight", "fc.bias"}
    ours = build().eval()
    state = {key.removeprefix("backbone."): value for key, value in converted.state_dict.items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert missing == [] and all(key.endswith("num_batches_tracked") for key in unexpected)
    with torch.no_grad():
        x = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(IMAGES)))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(x)))
        torch.testing.assert_close(ours(IMAGES)["res5"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda **o: ResNeXt(depth=101, **o), "resnext101_32x8d"),
        (lambda **o: ResNeXt(depth=101, groups=64, width_per_group=4, **o), "resnext101_64x4d"),
        (lambda **o: ResNet(depth=101, width_per_group=128, **o), "wide_resnet101_2"),
    ],
    ids=["resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2"],
)
def test_it_has_the_parameters_of_torchvision(build, name):
    with torch.device("meta"):
        ours = build(norm="BN", freeze_at=0)
        theirs = getattr(torchvision.models, name)(weights=None)
    assert count(ours) == count(theirs) - count(theirs.fc)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResNet(depth=50, stem="3x3", shortcut="pool", **TINY),
        lambda: ResNet(depth=18, stem="3x3", shortcut="pool", res5_dilation=2, **TINY),
        lambda: ResNet(depth=50, deformable=Deformable(), stride_in_1x1=True, **TINY),
        lambda: ResNeXt(depth=50, groups=4, width_per_group=16, deformable=Deformable(groups=2), **TINY),
    ],
    ids=["R-50-D", "R-18-D-DC5", "R-50-dconv", "X-50-dconv"],
)
def test_maps_are_the_sides_of_the_image_over_the_stride_rounded_up(build):
    backbone = build()
    features = backbone(IMAGES)
    assert list(features) == list(backbone.feature_shapes) == ["res2", "res3", "res4", "res5"]
    for name, shape in backbone.feature_shapes.items():
        assert features[name].shape == (1, shape.channels, -(-70 // shape.stride), -(-101 // shape.stride))


def test_the_shortcut_of_resnet_d_is_the_mean_of_four_pixels():
    shortcut = PooledConvNorm(1, 1, 2, norm="FrozenBN", norm_eps=0.0)
    nn.init.ones_(shortcut.weight)
    x = torch.tensor([[[[1.0, 2.0, 9.0], [3.0, 6.0, 9.0], [5.0, 7.0, 8.0]]]])
    # Behind the border there is nothing: the last mean of a side of three is that of what is left.
    assert shortcut(x).tolist() == [[[[3.0, 9.0], [6.0, 8.0]]]]


def test_resnet_d_changes_only_shortcuts_that_make_a_step():
    backbone = ResNet(depth=50, stem="3x3", shortcut="pool", **TINY)
    pooled = [name for name, layer in backbone.named_modules() if isinstance(layer, PooledConvNorm)]
    assert pooled == ["res3.0.shortcut", "res4.0.shortcut", "res5.0.shortcut"]
    assert [conv.stride for conv in backbone.stem.children()] == [(2, 2), (1, 1), (1, 1)]


def deformable_conv(modulated, groups=1):
    return DeformConvNorm(
        2,
        2,
        stride=1,
        dilation=1,
        groups=1,
        norm="FrozenBN",
        norm_eps=0.0,
        deformable=Deformable(modulated=modulated, groups=groups),
    )


@pytest.mark.parametrize(("modulated", "weight"), [(False, 1.0), (True, 0.5)])
def test_before_training_taps_do_not_move(modulated, weight):
    conv = deformable_conv(modulated)
    x = torch.randn(1, 2, 5, 6)
    expected = F.relu(weight * F.conv2d(x, conv.weight, padding=1))
    torch.testing.assert_close(conv(x), expected)


def test_taps_move_where_the_offsets_say():
    """dy = 1 for every tap: the convolution of the map moved up by a pixel, with nothing below it."""
    conv = deformable_conv(modulated=False, groups=2)
    with torch.no_grad():
        conv.offset.bias[0::2] = 1.0
    x = torch.randn(1, 2, 5, 6)
    expected = F.relu(F.conv2d(F.pad(x, (1, 1, 0, 2)), conv.weight))
    torch.testing.assert_close(conv(x), expected)


def test_only_the_named_stages_are_deformable_and_a_fresh_one_stays_at_rest():
    backbone = ResNet(depth=50, deformable=Deformable(stages=("res4", "res5")), **TINY)
    convs = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, DeformConvNorm)}
    assert {name.split(".")[0] for name in convs} == {"res4", "res5"}
    assert len(convs) == 6 + 3
    assert all(not layer.offset.weight.any() and not layer.offset.bias.any() for layer in convs.values())


def test_offsets_are_float32_also_in_half_precision():
    """Taps that move by 129.25 pixels: bfloat16 has whole numbers only from 128 on."""
    conv, said = deformable_conv(modulated=False), []
    nn.init.constant_(conv.offset.bias, 129.25)
    conv.offset.register_forward_hook(lambda _conv, _x, offsets: said.append(offsets))
    x = torch.randn(1, 2, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        conv(x.bfloat16())
    assert said[0].dtype == torch.float32
    assert (said[0] == 129.25).all()


def test_offsets_learn_also_in_half_precision():
    backbone = ResNet(depth=50, deformable=Deformable(stages=("res5",)), **TINY)
    with torch.autocast("cpu", torch.bfloat16):
        backbone(IMAGES)["res5"].float().square().mean().backward()
    for block in backbone.res5:
        assert block.conv2.offset.bias.grad.isfinite().all()
        assert block.conv2.offset.bias.grad.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNet(depth=18, width_per_group=128), "need bottlenecks: depth 50 or more, got 18"),
        (lambda: ResNet(depth=34, deformable=Deformable()), "need bottlenecks: depth 50 or more, got 34"),
        (lambda: ResNet(depth=50, stem="5x5"), "stem must be one of 7x7, 3x3, got '5x5'"),
        (lambda: ResNet(depth=50, shortcut="max"), "shortcut must be conv or pool, got 'max'"),
        (lambda: ResNeXt(depth=50, groups=0), "groups and width_per_group must be at least 1, got 0 and 8"),
        (
            lambda: ResNeXt(depth=50, width_per_group=4, stem_channels=8),
            "leaves no channels in res2 when the stem has 8",
        ),
        (lambda: Deformable(stages=("res1",)), "deformable.stages must be names out of res2, res3, res4, res5"),
        (lambda: Deformable(groups=0), "deformable.groups must be at least 1, got 0"),
        (
            lambda: ResNet(depth=50, deformable=Deformable(groups=3)),
            "deformable.groups must divide 128 channels, got 3",
        ),
    ],
)
def test_mistakes_are_explained(build, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build()
