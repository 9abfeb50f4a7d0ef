"""ResNet and MobileNet: shapes, strides, what is frozen, and torchvision's networks as the measure of the values."""

import pytest
import torch
import torchvision
from torch import nn

from frcnn.checkpoint.torchvision import from_torchvision
from frcnn.modeling.backbones import MobileNetV2, MobileNetV3, ResNet, ResNetStage
from frcnn.modeling.layers import FrozenBatchNorm2d
from frcnn.structures import FeatureShape

IMAGES = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
ALL_STAGES = ("c0", "c1", "c2", "c3", "c4", "c5")


def sizes(features):
    return {name: tuple(feature.shape[1:]) for name, feature in features.items()}


def promised(backbone, height, width):
    return {
        name: (shape.channels, height // shape.stride, width // shape.stride)
        for name, shape in backbone.feature_shapes.items()
    }


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


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("res5_dilation", [1, 2])
def test_resnet_returns_what_it_promises(depth, res5_dilation):
    backbone = ResNet(depth=depth, stem_channels=8, norm="GN", freeze_at=0, res5_dilation=res5_dilation)
    features = backbone(IMAGES)
    assert sizes(features) == promised(backbone, 64, 96)
    assert list(features) == ["res2", "res3", "res4", "res5"]
    assert backbone.feature_shapes["res5"].stride == (32 if res5_dilation == 1 else 16)
    assert backbone.size_divisibility == 1


def test_resnet_50_shapes():
    with torch.device("meta"):
        backbone = ResNet(depth=50)
    assert backbone.feature_shapes == {
        "res2": FeatureShape(256, 4),
        "res3": FeatureShape(512, 8),
        "res4": FeatureShape(1024, 16),
        "res5": FeatureShape(2048, 32),
    }


def test_stages_behind_the_last_feature_are_not_built():
    backbone = ResNet(depth=18, stem_channels=8, out_features=("stem", "res3"))
    assert [name for name, _ in backbone.named_children()] == ["stem", "res2", "res3"]
    assert list(backbone(IMAGES)) == ["stem", "res3"]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnet_has_the_parameters_of_torchvision(depth):
    with torch.device("meta"):
        ours = ResNet(depth=depth, norm="BN", freeze_at=0)
        theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    head = sum(p.numel() for p in theirs.fc.parameters())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - head


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_resnet_computes_what_torchvision_computes(depth, norm):
    theirs = fill_norms(getattr(torchvision.models, f"resnet{depth}")(weights=None))
    converted = from_torchvision(theirs.state_dict())
    assert converted.unused == [] and set(converted.left_out) == {"fc.weight", "fc.bias"}
    ours = ResNet(depth=depth, norm=norm, freeze_at=2).eval()
    state = {name.removeprefix("backbone."): value for name, value in converted.state_dict.items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert missing == []
    assert unexpected == [] or all(name.endswith("num_batches_tracked") for name in unexpected)
    with torch.no_grad():
        x = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(IMAGES)))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(x)))
        torch.testing.assert_close(ours(IMAGES)["res5"], expected, rtol=1e-4, atol=1e-5)


def test_the_stride_moves_into_the_1x1_convolution():
    first = ResNet(depth=50, stem_channels=8, stride_in_1x1=True).res3[0]
    assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))
    first = ResNet(depth=50, stem_channels=8).res3[0]
    assert (first.conv1.stride, first.conv2.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize("depth", [18, 50])
def test_a_dilated_last_stage_sees_every_second_pixel(depth):
    """Of a dilated stage, every second pixel is what the plain stage computes from every second pixel of its input."""
    plain = ResNetStage(depth, 5, stem_channels=8, stride=1, norm="FrozenBN")
    dilated = ResNetStage(depth, 5, stem_channels=8, stride=1, dilation=2, norm="FrozenBN")
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, plain.in_channels, 16, 16)
    torch.testing.assert_close(dilated(x)[..., ::2, ::2], plain(x[..., ::2, ::2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN", "FrozenBN"])
def test_frozen_parts_do_not_change_in_training(norm):
    backbone = ResNet(depth=18, stem_channels=32, norm=norm, freeze_at=2).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(feature.square().mean() for feature in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    optimizer.step()
    changed = {
        name.split(".")[0] for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"res3", "res4", "res5"}


def test_batch_norm_stays_trainable_behind_the_frozen_parts():
    backbone = ResNet(depth=18, stem_channels=8, norm="BN", freeze_at=1)
    assert isinstance(backbone.stem.conv1.norm, FrozenBatchNorm2d)
    assert isinstance(backbone.res2[0].conv1.norm, nn.BatchNorm2d)


def test_freezing_every_part_leaves_nothing_to_learn():
    backbone = ResNet(depth=18, stem_channels=8, norm="BN", freeze_at=5)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "depth must be one of 18, 34, 50, 101, 152, got 20"),
        ({"freeze_at": 6}, "freeze_at must be in 0..5"),
        ({"out_features": ("c5",)}, "out_features must be different names out of stem, res2, res3, res4, res5"),
        ({"out_features": ()}, "out_features must be different names"),
        ({"res5_dilation": 4}, "res5_dilation must be 1 or 2, got 4"),
    ],
)
def test_resnet_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        ResNet(**{"depth": 18, **options})


@pytest.mark.parametrize("build", [MobileNetV2, MobileNetV3, lambda **kw: MobileNetV3(size="small", **kw)])
def test_mobilenet_returns_what_it_promises(build):
    backbone = build(out_features=ALL_STAGES)
    features = backbone(IMAGES)
    assert sizes(features) == promised(backbone, 64, 96)
    assert [shape.stride for shape in backbone.feature_shapes.values()] == [2, 4, 8, 16, 32, 32]


def test_single_level_mobilenets():
    with torch.device("meta"):
        assert MobileNetV2().feature_shapes == {"c5": FeatureShape(1280, 32)}
        assert MobileNetV3().feature_shapes == {"c5": FeatureShape(960, 32)}
        assert MobileNetV2().size_divisibility == 1


@pytest.mark.parametrize(
    ("build", "theirs"),
    [(MobileNetV2, torchvision.models.mobilenet_v2), (MobileNetV3, torchvision.models.mobilenet_v3_large)],
)
def test_mobilenet_computes_what_torchvision_computes(build, theirs):
    theirs = fill_norms(theirs(weights=None))
    converted = from_torchvision(theirs.state_dict())
    assert converted.unused == [] and all(name.startswith("classifier.") for name in converted.left_out)
    ours = build(norm="BN").eval()
    ours.load_state_dict({name.removeprefix("backbone."): value for name, value in converted.state_dict.items()})
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES)["c5"], theirs.features(IMAGES))


@pytest.mark.parametrize(("freeze_at", "first"), [(0, "0"), (3, "7"), (6, None)])
def test_mobilenet_freezes_whole_stages(freeze_at, first):
    backbone = MobileNetV3(norm="BN", freeze_at=freeze_at)
    learning = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert (learning[0].split(".")[1] if learning else None) == first
    kinds = {type(layer) for layer in backbone.features[0].modules()}
    assert (FrozenBatchNorm2d in kinds) == (freeze_at > 0)


def test_mobilenet_mistakes_are_explained():
    with pytest.raises(ValueError, match=r"freeze_at must be in 0..6"), torch.device("meta"):
        MobileNetV2(freeze_at=7)
    with pytest.raises(ValueError, match="out_features must be different names out of c0"), torch.device("meta"):
        MobileNetV3(out_features=("res5",))
