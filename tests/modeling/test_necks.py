"""Necks: names, shapes, and pyramids computed by hand."""

import pytest
import torch
from torch import nn

from frcnn.modeling.necks import BFP, FPN, PAFPN, BiFPN
from frcnn.structures import FeatureShape

SHAPES = {"res2": FeatureShape(8, 4), "res3": FeatureShape(16, 8), "res4": FeatureShape(32, 16)}


def features(shapes, height=64, width=128):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, shape.channels, height // shape.stride, width // shape.stride, generator=generator)
        for name, shape in shapes.items()
    }


def passing_on(neck):
    """The neck with every kernel 1 in its middle and 0 elsewhere: convolutions pass on what they get."""
    for layer in neck.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            layer.weight.data[..., layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1.0
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return neck


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
    neck = passing_on(FPN(shapes, out_channels=1))
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


ONE_CHANNEL = {"res2": FeatureShape(1, 4), "res3": FeatureShape(1, 8)}
FINE = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]])
COARSE = torch.tensor([[[[10.0, 20.0]]]])


def test_pafpn_by_hand():
    """Top-down as FPN; then the coarse level gets the fine one's pixels at (0, 0) and (0, 2): 11 and 23."""
    neck = passing_on(PAFPN(ONE_CHANNEL, out_channels=1))
    outputs = neck({"res2": FINE, "res3": COARSE})
    assert outputs["p2"].tolist() == [[[[11.0, 12.0, 23.0, 24.0], [15.0, 16.0, 27.0, 28.0]]]]
    assert outputs["p3"].tolist() == [[[[10.0 + 11.0, 20.0 + 23.0]]]]
    assert outputs["p4"].tolist() == [[[[21.0]]]]


def test_bifpn_by_hand():
    """One round over two levels: fine = silu((fine + up) / 2), coarse = silu((coarse + 3x3 maximum of that) / 2)."""
    neck = passing_on(BiFPN(ONE_CHANNEL, out_channels=1, num_rounds=1, num_extra_levels=0, norm_eps=1e-12)).eval()
    outputs = neck({"res2": FINE, "res3": COARSE})
    half = 1 / 2.0001
    fine = nn.functional.silu(torch.tensor([[11.0, 12.0, 23.0, 24.0], [15.0, 16.0, 27.0, 28.0]]) * half)
    torch.testing.assert_close(outputs["p2"][0, 0], fine)
    # windows of the maximum: columns 0..1 and 1..3
    coarse = nn.functional.silu(
        (torch.tensor([10.0, 20.0]) + torch.stack([fine[:, :2].max(), fine[:, 1:].max()])) * half
    )
    torch.testing.assert_close(outputs["p3"][0, 0, 0], coarse)


def test_bifpn_weighs_its_inputs():
    neck = passing_on(BiFPN(ONE_CHANNEL, out_channels=1, num_rounds=1, num_extra_levels=0, norm_eps=1e-12)).eval()
    neck.rounds[0].down[0].weights.data = torch.tensor([3.0, 1.0])
    outputs = neck({"res2": FINE, "res3": COARSE})
    expected = nn.functional.silu(torch.tensor((3 * 1.0 + 1 * 10.0) / 4.0001))
    torch.testing.assert_close(outputs["p2"][0, 0, 0, 0], expected)


@pytest.mark.parametrize(("in_channels", "factor"), [(1, 1.0), (2, 3.0)])
def test_bifpn_makes_its_extra_levels_of_the_coarsest_input(in_channels, factor):
    """Not of the lateral, which is 100 times the input here; a 1x1 convolution comes first if the widths differ."""
    neck = passing_on(BiFPN({"res3": FeatureShape(in_channels, 8)}, out_channels=1, num_extra_levels=2, norm_eps=1e-12))
    neck.lateral["p3"].weight.data.fill_(100.0)
    inputs, given = torch.arange(16.0).reshape(1, 1, 4, 4), []
    neck.rounds[0].register_forward_pre_hook(lambda _round, args: given.extend(args[0]))
    if in_channels == 2:
        neck.extra_lateral.weight.data = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    neck.eval()({"res3": inputs.expand(-1, in_channels, -1, -1)})
    # 3x3 windows of stride 2 on the rows 0..3, 4..7, 8..11 and 12..15: they see rows and columns 0..1 and 1..3
    torch.testing.assert_close(given[1][0, 0], torch.tensor([[5.0, 7.0], [13.0, 15.0]]) * factor)
    torch.testing.assert_close(given[2][0, 0], torch.tensor([[15.0]]) * factor)


def test_bifpn_levels_and_sizes():
    neck = BiFPN(SHAPES, out_channels=8, num_rounds=2, num_extra_levels=2, norm="GN")
    outputs = neck(features(SHAPES, 48, 80))
    assert list(outputs) == list(neck.feature_shapes) == ["p2", "p3", "p4", "p5", "p6"]
    assert [tuple(x.shape[-2:]) for x in outputs.values()] == [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2)]
    assert [shape.stride for shape in neck.feature_shapes.values()] == [4, 8, 16, 32, 64]


def test_bfp_by_hand():
    """Meet at the fine level: mean of (fine, coarse repeated); the coarse level gets its maximum over 2x2 pixels."""
    neck = BFP({"p2": FeatureShape(1, 4), "p3": FeatureShape(1, 8)}, refine=None)
    assert neck.refine_level == "p2"
    outputs = neck({"p2": FINE, "p3": COARSE})
    mean = torch.tensor([[5.5, 6.0, 11.5, 12.0], [7.5, 8.0, 13.5, 14.0]])
    assert outputs["p2"][0, 0].tolist() == (FINE[0, 0] + mean).tolist()
    assert outputs["p3"].tolist() == [[[[10.0 + 8.0, 20.0 + 14.0]]]]


def test_bfp_non_local_starts_as_nothing_and_then_attends():
    shapes = {"p2": FeatureShape(1, 4), "p3": FeatureShape(1, 8)}
    neck, plain = BFP(shapes), BFP(shapes, refine=None)
    levels = {"p2": FINE, "p3": COARSE}
    torch.testing.assert_close(neck(levels), plain(levels))
    nn.init.ones_(neck.refine.value.weight)
    nn.init.ones_(neck.refine.output.weight)
    nn.init.zeros_(neck.refine.query.weight)  # equal attention to all positions: the mean is added
    mean = torch.tensor([[5.5, 6.0, 11.5, 12.0], [7.5, 8.0, 13.5, 14.0]])
    torch.testing.assert_close(neck(levels)["p2"][0, 0], FINE[0, 0] + mean + mean.mean())


def test_bfp_leaves_other_levels_alone():
    shapes = {name: FeatureShape(4, stride) for name, stride in (("p2", 4), ("p3", 8), ("p4", 16))}
    neck = BFP(shapes, in_features=("p2", "p3"), refine="conv")
    levels = features(shapes)
    outputs = neck(levels)
    assert list(outputs) == list(neck.feature_shapes) == ["p2", "p3", "p4"]
    assert outputs["p4"] is levels["p4"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: BFP(SHAPES),
            r"one width, but \['res2', 'res3', 'res4'\] have \[8, 16, 32\] channels: put an FPN before",
        ),
        (lambda: BFP({"p2": FeatureShape(4, 4)}, refine_level="p9"), "refine_level is p9, which is not among p2"),
        (lambda: BiFPN({"c2": FeatureShape(4, 4), "c3": FeatureShape(4, 4)}), r"half as fine .* strides \[4, 4\]"),
        (lambda: BiFPN(SHAPES, num_rounds=0), "num_rounds must be at least 1, got 0"),
        (lambda: PAFPN(SHAPES, in_features=("res3", "res2")), "fine to coarse"),
    ],
)
def test_mistakes_of_the_other_necks_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
