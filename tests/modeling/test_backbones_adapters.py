"""Networks of torchvision and timm as backbones."""

import copy
import re
import sys

import pytest
import torch
import torchvision
from torch import nn

from frcnn.checkpoint.adapted import named_as_in
from frcnn.checkpoint.sources import resolve_weights
from frcnn.modeling.backbones import TimmBackbone, TorchvisionBackbone
from frcnn.modeling.layers import FrozenBatchNorm2d
from frcnn.structures import FeatureShape

IMAGES = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
DENSE_NODES = {"c3": "features.denseblock2", "c4": "features.denseblock3", "c5": "features.norm5"}
SHUFFLE_NODES = {"c3": "stage2", "c4": "stage3"}


def shuffle(**options):
    return TorchvisionBackbone(model="shufflenet_v2_x0_5", nodes=SHUFFLE_NODES, **options)


class Model(nn.Module):
    """The place of a backbone in a detector, which names depend on."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


@pytest.mark.parametrize(
    ("model", "nodes", "shapes"),
    [
        ("densenet121", DENSE_NODES, [(512, 8), (1024, 16), (1024, 32)]),
        ("shufflenet_v2_x0_5", SHUFFLE_NODES, [(48, 8), (96, 16)]),
        ("regnet_x_400mf", {"c4": "trunk_output.block3"}, [(160, 16)]),
        ("vgg11", {"c2": "features.8", "c3": "features.13"}, [(256, 8 // 2), (512, 8)]),
    ],
)
def test_strides_and_widths_are_found_without_memory(model, nodes, shapes):
    with torch.device("meta"):
        backbone = TorchvisionBackbone(model=model, nodes=nodes)
    expected = [FeatureShape(*shape) for shape in shapes]
    assert list(backbone.feature_shapes.values()) == expected
    assert backbone.size_divisibility == expected[-1].stride
    assert {p.device.type for p in backbone.parameters()} == {"meta"}


@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_the_network_computes(training):
    theirs = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    backbone = shuffle().train(training)
    backbone.network.load_state_dict(theirs.state_dict(), strict=False)
    with torch.no_grad():
        features = backbone(IMAGES)  # with frozen norms, training changes nothing
        expected = theirs.stage2(theirs.maxpool(theirs.conv1(IMAGES)))
    assert list(features) == ["c3", "c4"] and features["c4"].shape == (1, 96, 4, 6)
    torch.testing.assert_close(features["c3"], expected, rtol=1e-5, atol=1e-5)


def test_a_copy_of_it_works_too():
    """A running average of the weights is a copy of the model."""
    backbone = shuffle().eval()
    torch.testing.assert_close(copy.deepcopy(backbone)(IMAGES), backbone(IMAGES))


def test_frozen_modules_get_no_gradient_and_the_next_one_does():
    backbone = shuffle(norm="BN", frozen=("conv1", "stage2.0")).train()
    backbone(IMAGES)["c4"].square().mean().backward()
    without = {name for name, p in backbone.network.named_parameters() if p.grad is None}
    assert without == {
        name for name, _ in backbone.network.named_parameters() if name.startswith(("conv1.", "stage2.0."))
    }
    assert isinstance(backbone.network.get_submodule("conv1.1"), FrozenBatchNorm2d)
    assert isinstance(backbone.network.get_submodule("stage2.1.branch2.1"), nn.BatchNorm2d)


def test_what_lies_behind_the_last_node_is_not_kept():
    assert not any(name.startswith(("stage4", "conv5", "fc")) for name in shuffle().network.state_dict())


@pytest.mark.parametrize(("norm", "kind"), [("GN", nn.GroupNorm), (None, nn.BatchNorm2d), ("LN", nn.LayerNorm)])
def test_batch_norms_are_exchanged(norm, kind):
    layer = shuffle(norm=norm).network.get_submodule("conv1.1")
    assert isinstance(layer, kind)


@pytest.mark.parametrize("published", [False, True])
def test_weights_of_torchvision_find_their_places(tmp_path, published):
    theirs = torchvision.models.densenet121(weights=None).state_dict()
    if published:  # torchvision's files have the names that its layers once had: denselayer1.norm.1.weight
        theirs = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): t for name, t in theirs.items()}
    torch.save(theirs, tmp_path / "densenet121.pth")
    with torch.device("meta"):
        model = Model(TorchvisionBackbone(model="densenet121", nodes=DENSE_NODES))
    named = named_as_in(model, resolve_weights(tmp_path / "densenet121.pth"))
    assert set(model.state_dict()) <= set(named)
    assert set(named) - set(model.state_dict()) == {"classifier.weight", "classifier.bias"} | {
        name for name in named if name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "densenet_121"}, "model: torchvision has no classifier 'densenet_121'; did you mean densenet121"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "torchvision has no classifier"),
        ({"nodes": {}}, "nodes must name at least one node"),
        ({"nodes": {"c3": "stage9"}}, "has no node 'stage9'; did you mean stage4"),
        ({"nodes": {"c5": "fc"}}, r"nodes: 'fc' of shufflenet_v2_x0_5 makes \[1, 1000\] of an image of 256 pixels"),
        ({"frozen": ("stem",)}, "frozen: there is no module 'stem'; "),
        ({"model": "vit_b_16", "nodes": {"c4": "encoder.ln"}}, "model: vit_b_16 does not take images of 256 pixels"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        TorchvisionBackbone(**{"model": "shufflenet_v2_x0_5", "nodes": SHUFFLE_NODES, **options})


def test_without_timm_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="'resnet18' is a network of timm, which is not installed: pip install timm"):
        TimmBackbone(model="resnet18")


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("model", "options", "shapes"),
    [
        ("resnet18", {}, [(64, 4), (128, 8), (256, 16), (512, 32)]),
        ("convnextv2_atto", {"out_features": ("c5", "c3")}, [(80, 8), (320, 32)]),
        ("mobilenetv3_small_050", {"out_features": ("c4",)}, [(24, 16)]),
        (
            "swin_tiny_patch4_window7_224",
            {"out_features": ("c2", "c5"), "arguments": {"strict_img_size": False}},
            [(96, 4), (768, 32)],
        ),
        ("vit_tiny_patch16_224", {"out_features": ("c4",), "arguments": {"dynamic_img_size": True}}, [(192, 16)]),
    ],
)
def test_maps_of_timm(timm, model, options, shapes):
    backbone = TimmBackbone(model=model, **options)
    assert list(backbone.feature_shapes.values()) == [FeatureShape(*shape) for shape in shapes]
    features = backbone(IMAGES)
    assert list(features) == list(backbone.feature_shapes)
    for feature, (channels, stride) in zip(features.values(), shapes, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)
    with torch.device("meta"):
        assert TimmBackbone(model=model, **options).feature_shapes == backbone.feature_shapes


def test_batch_norms_of_timm_with_an_activation_inside_keep_it_when_frozen(timm):
    theirs = timm.create_model("mobilenetv3_small_050", features_only=True).eval()
    backbone = TimmBackbone(model="mobilenetv3_small_050", norm="BN", frozen=("conv_stem", "bn1", "blocks.0")).train()
    backbone.network.load_state_dict(theirs.state_dict(), strict=False)
    x = backbone.network.conv_stem(IMAGES)
    torch.testing.assert_close(backbone.network.bn1(x), theirs.bn1(x))
    features = backbone(IMAGES)
    features["c5"].square().mean().backward()
    learns = {name.split(".")[0] for name, p in backbone.network.named_parameters() if p.grad is not None}
    assert learns == {"blocks"}


@pytest.mark.parametrize("model", ["resnet18", "convnextv2_atto", "vit_tiny_patch16_224"])
def test_weights_of_timm_find_their_places(timm, tmp_path, model):
    torch.save(timm.create_model(model, pretrained=False).state_dict(), tmp_path / "weights.pth")
    features = ("c4",) if model.startswith("vit") else ("c2", "c3", "c4", "c5")
    with torch.device("meta"):
        detector = Model(TimmBackbone(model=model, out_features=features))
    named = named_as_in(detector, resolve_weights(tmp_path / "weights.pth"))
    assert set(detector.state_dict()) <= set(named)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet81"}, "has no 'resnet81'; did you mean"),
        ({"out_features": ("c6",)}, "out_features must be different names out of c1, c2, c3, c4, c5"),
        ({"norm": "GN"}, "norm must be one of FrozenBN, BN, SyncBN, got 'GN'"),
        ({"frozen": ("layer0",)}, "frozen: there is no module 'layer0'; did you mean"),
    ],
)
def test_mistakes_with_timm_are_explained(timm, options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        TimmBackbone(**{"model": "resnet18", **options})
