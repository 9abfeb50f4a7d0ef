"""FPN: names, shapes, and a pyramid computed by hand."""

import pytest
import torch
from torch import nn

from frcnn.modeling.necks import FPN
from frcnn.structures import FeatureShape

SHAPES = {"res2": FeatureShape(8, 4), "res3": FeatureShape(16, 8), "res4": FeatureShape(32, 16)}


def features(shapes, height=64, width=128):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, shape.channels, height // shape.stride, width // shape.stride, generator=generator)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ("top_block", "levels"),
    [(None, ["p2", "p3", "p4"]), ("pool", ["p2", "p3", "p4", "p5"]), ("p6p7", ["p2", "p3", "p4", "p5", "p6"])],
)
def test_levels_take_the_number_of_their_input(top_block, levels):
    neck = FPN(SHAPES, out_channels=4, top_block=top_block)
    outputs = neck(features(SHAPES))
    assert list(outputs) == list(neck.feature_shapes) == levels
    for name, output in outputs.items():
        stride = neck.feature_shapes[name].stride
        assert output.shape == (2, 4, 64 // stride, 128 // stride)
    assert neck.size_divisibility == 16


def test_a_pyramid_by_hand():
    """One channel, all weights 1 in the middle of the kernel: each output is the sum of what is above it."""
    shapes = {"res2": FeatureShape(1, 4), "res3": FeatureShape(1, 8)}
    neck = FPN(shapes, out_channels=1)
    for layer in neck.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            layer.weight.data[..., layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1.0
    coarse = torch.tensor([[[[10.0, 20.0]]]])
    fine = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]])
    outputs = neck({"res2": fine, "res3": coarse})
    assert outputs["p2"].tolist() == [[[[11.0, 12.0, 23.0, 24.0], [15.0, 16.0, 27.0, 28.0]]]]
    assert outputs["p3"].tolist() == coarse.tolist()
    assert outputs["p4"].tolist() == [[[[10.0]]]]


def test_two_levels_may_share_a_stride():
    shapes = {"c4": FeatureShape(8, 32), "c5": FeatureShape(16, 32)}
    neck = FPN(shapes, out_channels=4)
    outputs = neck(features(shapes, 64, 96))
    assert {name: tuple(output.shape[-2:]) for name, output in outputs.items()} == {
        "p4": (2, 3),
        "p5": (2, 3),
        "p6": (1, 2),
    }
    assert [shape.stride for shape in neck.feature_shapes.values()] == [32, 32, 64]


def test_a_map_that_is_not_half_as_large_is_brought_to_the_lateral():
    neck = FPN({name: SHAPES[name] for name in ("res2", "res3")}, out_channels=4)
    outputs = neck({"res2": torch.randn(1, 8, 9, 13), "res3": torch.randn(1, 16, 5, 7)})
    assert outputs["p2"].shape == (1, 4, 9, 13)


def test_in_features_choose_the_levels():
    neck = FPN(SHAPES, in_features=("res3", "res4"), out_channels=4, norm="GN")
    assert list(neck(features(SHAPES))) == ["p3", "p4", "p5"]
    assert neck.lateral["p3"].bias is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"in_features": ("res2", "res6")},
            r"in_features has res6, which is none of the feature maps res2, res3, res4",
        ),
        ({"in_features": ("res3", "res2")}, r"fine to coarse, but \['res3', 'res2'\] have strides \[8, 4\]"),
        ({"top_block": "p8"}, "top_block must be pool, p6p7 or null, got 'p8'"),
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        FPN(SHAPES, **options)


def test_a_feature_without_number_is_refused():
    with pytest.raises(ValueError, match="'stem' has none"):
        FPN({"stem": FeatureShape(8, 4)})
