"""RegNet, EfficientNet, ConvNeXt and Swin: torchvision's networks are the measure of the values."""

from typing import get_args

import pytest
import torch
import torchvision
from torch import nn

from frcnn.checkpoint.torchvision import from_torchvision
from frcnn.modeling.backbones import ConvNeXt, EfficientNet, RegNet, SwinTransformer
from frcnn.modeling.backbones.regnet import Model as RegNetModel
from frcnn.modeling.backbones.staged import PatchConv, set_drop_path
from frcnn.modeling.layers import FrozenBatchNorm2d
from frcnn.structures import FeatureShape

SMALL = {
    "RegNet-X": lambda **o: RegNet(model="x_400mf", **o),
    "RegNet-Y": lambda **o: RegNet(model="y_400mf", **o),
    "EfficientNet": lambda **o: EfficientNet(model="b0", **o),
    "ConvNeXt": lambda **o: ConvNeXt(size="tiny", **o),
    "Swin": lambda **o: SwinTransformer(model="t", **o),
    "Swin-V2": lambda **o: SwinTransformer(model="v2_t", **o),
}


def images(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def fill(network):
    """Weights and statistics that are not those of a fresh network, so that a forgotten one is seen."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
    for name, parameter in network.named_parameters():
        if name.endswith(("layer_scale", "logit_scale", "relative_position_bias_table")):
            nn.init.normal_(parameter, 0.5, 0.2, generator=generator)
    return network.eval()


def theirs_of_last_map(theirs, x):
    if hasattr(theirs, "trunk_output"):
        return theirs.trunk_output(theirs.stem(x))
    if isinstance(theirs, torchvision.models.EfficientNet):
        return theirs.features[:-1](x)
    x = theirs.features(x)
    return x.permute(0, 3, 1, 2) if isinstance(theirs, torchvision.models.SwinTransformer) else x


@pytest.mark.parametrize(
    ("build", "name", "left_out"),
    [
        (SMALL["RegNet-X"], "regnet_x_400mf", {"fc"}),
        (SMALL["RegNet-Y"], "regnet_y_400mf", {"fc"}),
        (SMALL["EfficientNet"], "efficientnet_b0", {"classifier"}),
        (lambda: EfficientNet(model="v2_s"), "efficientnet_v2_s", {"classifier"}),
        (lambda: ConvNeXt(out_norm=None), "convnext_tiny", {"classifier"}),
        (lambda: SwinTransformer(out_norm=None), "swin_t", {"norm", "head"}),
        (lambda: SwinTransformer(model="v2_t", out_norm=None), "swin_v2_t", {"norm", "head"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_computes_what_torchvision_computes(build, name, left_out):
    theirs = fill(getattr(torchvision.models, name)(weights=None))
    converted = from_torchvision(theirs.state_dict())
    assert converted.unused == [] and {key.split(".")[0] for key in converted.left_out} == left_out
    ours = build().eval()
    state = {key.removeprefix("backbone."): value for key, value in converted.state_dict.items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert missing == []
    widening = "features.8." if name == "efficientnet_b0" else "features.7."  # EfficientNet's last 1x1 convolution
    assert all(
        key.endswith("num_batches_tracked") or (name.startswith("efficientnet") and key.startswith(widening))
        for key in unexpected
    )
    x = images(64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)["c5"], theirs_of_last_map(theirs, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_maps_are_the_sides_of_the_image_over_the_stride_rounded_up(name):
    backbone = SMALL[name]().eval()
    with torch.no_grad():
        features = backbone(images(70, 101))
    assert list(features) == ["c2", "c3", "c4", "c5"]
    assert backbone.size_divisibility == 1
    for feature, shape in zip(features.values(), backbone.feature_shapes.values(), strict=True):
        assert feature.shape == (1, shape.channels, -(-70 // shape.stride), -(-101 // shape.stride))


WIDTHS = {
    "RegNet-X 3.2GF": (lambda: RegNet(model="x_3_2gf"), (96, 192, 432, 1008)),
    "RegNet-X 4GF": (lambda: RegNet(model="x_4gf"), (80, 240, 560, 1360)),
    "RegNet-Y 4GF": (lambda: RegNet(model="y_4gf"), (128, 192, 512, 1088)),
    "RegNet-Y 32GF": (lambda: RegNet(model="y_32gf"), (232, 696, 1392, 3712)),
    "EfficientNet-B0": (lambda: EfficientNet(model="b0"), (24, 40, 112, 320)),
    "EfficientNet-B7": (lambda: EfficientNet(model="b7"), (48, 80, 224, 640)),
    "EfficientNet-V2-L": (lambda: EfficientNet(model="v2_l"), (64, 96, 224, 640)),
    "ConvNeXt-L": (lambda: ConvNeXt(size="large"), (192, 384, 768, 1536)),
    "Swin-B": (lambda: SwinTransformer(model="b"), (128, 256, 512, 1024)),
    "Swin-V2-S": (lambda: SwinTransformer(model="v2_s"), (96, 192, 384, 768)),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_widths_are_those_of_the_papers(name):
    build, widths = WIDTHS[name]
    with torch.device("meta"):
        shapes = build().feature_shapes
    assert list(shapes.values()) == [FeatureShape(c, s) for c, s in zip(widths, (4, 8, 16, 32), strict=True)]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_frozen_stages_get_no_gradient_and_the_next_one_does(name, freeze_at):
    backbone = SMALL[name](norm="GN", freeze_at=freeze_at, out_features=("c4",)).train()
    backbone(images(64, 64))["c4"].square().mean().backward()
    learns = {key: p.grad is not None for key, p in backbone.named_parameters()}
    assert learns == {key: p.requires_grad for key, p in backbone.named_parameters()}
    frozen = [key for key, does in learns.items() if not does]
    assert bool(frozen) == (freeze_at > 0)
    assert set(learns) - set(frozen) or freeze_at == 3


@pytest.mark.parametrize("model", [m for m in get_args(RegNetModel) if not m.endswith("_4gf")])
def test_regnet_has_the_parameters_of_torchvision(model):
    with torch.device("meta"):
        backbone = RegNet(model=model, norm="BN", freeze_at=0)
    weights = torchvision.models.get_model_weights(f"regnet_{model}").DEFAULT
    width = backbone.feature_shapes["c5"].channels
    count = sum(p.numel() for p in backbone.parameters())
    assert count == weights.meta["num_params"] - 1000 * (width + 1)


def test_layers_behind_the_last_feature_are_not_kept():
    with torch.device("meta"):
        backbone = ConvNeXt(out_features=("c3",))
    assert len(backbone.features) == 4 and list(backbone.norms) == ["c3"]
    assert backbone.feature_shapes == {"c3": FeatureShape(192, 8)}


@pytest.mark.parametrize("name", ["RegNet-Y", "EfficientNet"])
def test_frozen_batch_norms_keep_their_statistics(name):
    with torch.device("meta"):
        backbone = SMALL[name](norm="BN", freeze_at=2)
    kinds = [
        {type(part) for part in layer.modules() if isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d)}
        for layer in backbone.features
    ]
    last_frozen = 1 if name == "RegNet-Y" else 2
    assert kinds[last_frozen] == {FrozenBatchNorm2d} and kinds[last_frozen + 1] == {nn.BatchNorm2d}


@pytest.mark.parametrize("name", ["ConvNeXt", "Swin", "Swin-V2"])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN"])
def test_transformers_take_other_norms(name, norm):
    backbone = SMALL[name](norm=norm, out_norm=None, out_features=("c2",))
    assert not any(isinstance(layer, nn.LayerNorm) for layer in backbone.modules())
    assert backbone(images(32, 32))["c2"].isfinite().all()


def test_efficientnet_keeps_the_eps_of_its_weights_unless_told():
    with torch.device("meta"):
        eps = {model: EfficientNet(model=model).features[0][1].eps for model in ("b0", "b5", "v2_s")}
        assert EfficientNet(model="b5", norm_eps=1e-5).features[0][1].eps == 1e-5
    assert eps == {"b0": 1e-5, "b5": 1e-3, "v2_s": 1e-3}


def test_blocks_are_left_out_more_and_more_often():
    network = nn.Sequential(*(torchvision.ops.StochasticDepth(0.9, "row") for _ in range(5)))
    set_drop_path(network, 0.2)
    assert [layer.p for layer in network] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_a_patch_at_the_border_is_filled_with_zeros():
    conv = PatchConv.of(nn.Conv2d(1, 1, 2, 2))
    nn.init.ones_(conv.weight), nn.init.zeros_(conv.bias)
    assert conv(torch.ones(1, 1, 3, 4)).tolist() == [[[[4.0, 4.0], [2.0, 2.0]]]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RegNet(freeze_at=6), r"freeze_at must be in 0..5 \(0 none, 1 up to c1, ...\), got 6"),
        (lambda: ConvNeXt(freeze_at=5), r"freeze_at must be in 0..4 \(0 none, 1 up to c2, ...\), got 5"),
        (lambda: SwinTransformer(out_features=("c1",)), "out_features must be different names out of c2, c3, c4, c5"),
        (lambda: SwinTransformer(drop_path=1.0), r"drop_path must be in \[0, 1\), got 1.0"),
    ],
)
def test_mistakes_are_explained(build, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build()
