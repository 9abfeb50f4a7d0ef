import pytest
import torch
from torch import nn

from frcnn.modeling.groie import GRoIE
from frcnn.modeling.non_local import NonLocalBlock
from frcnn.modeling.poolers import ROIAlign
from frcnn.structures import FeatureShape

SHAPES = {"p2": FeatureShape(4, 4), "p3": FeatureShape(4, 8), "p4": FeatureShape(4, 16)}
BOXES = [torch.tensor([[3.0, 5.0, 40.0, 50.0], [0.0, 0.0, 8.0, 8.0]]), torch.tensor([[10.0, 10.0, 60.0, 60.0]])]


def features(batch=2):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(batch, 4, 64 // s.stride, 64 // s.stride, generator=generator) for name, s in SHAPES.items()
    }


def of_one_level(name, boxes=BOXES):
    return ROIAlign({name: SHAPES[name]}, resolution=3)(features(), boxes)


def test_without_convolutions_it_is_the_sum_over_the_levels():
    pooler = GRoIE(SHAPES, resolution=3, pre_kernel=None, post=None)
    expected = of_one_level("p2") + of_one_level("p3") + of_one_level("p4")
    torch.testing.assert_close(pooler(features(), BOXES), expected)
    assert not list(pooler.parameters())


def test_the_convolution_comes_before_the_sum_and_is_the_same_for_all_levels():
    pooler = GRoIE(SHAPES, resolution=3, pre_kernel=1, post=None)
    (conv, _) = pooler.pre
    nn.init.constant_(conv.weight, 0.0)
    conv.weight.data[range(4), range(4)] = -1.0  # the ReLU then keeps what was negative, with its sign turned
    expected = sum((-of_one_level(name)).relu() for name in SHAPES)
    torch.testing.assert_close(pooler(features(), BOXES), expected)


def test_a_non_local_block_starts_as_the_identity_and_then_adds_a_mean():
    block = NonLocalBlock(2, inner_channels=1, scale=None)
    x = torch.randn(3, 2, 4, 4)
    assert torch.equal(block(x), x)
    # Nothing is more alike than anything else (no query): every cell sees the mean of channel 0, and adds it to channel 1.
    nn.init.zeros_(block.query.weight)
    block.value.weight.data[:] = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    block.output.weight.data[:] = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    expected = x.clone()
    expected[:, 1] += x[:, 0].mean(dim=(1, 2))[:, None, None]
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("post", ["non_local", "conv", None])
def test_no_box_and_gradients(post):
    pooler = GRoIE(SHAPES, resolution=3, post=post)
    maps = {name: value.requires_grad_() for name, value in features().items()}
    pooled = pooler(maps, BOXES)
    assert pooled.shape == (3, 4, 3, 3)
    pooled.sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in maps.values())
    nothing = pooler(features(), [torch.zeros(0, 4)] * 2)
    assert nothing.shape == (0, 4, 3, 3)
    nothing.sum().backward()


def test_half_precision_features_are_pooled_in_float32():
    pooler = GRoIE(SHAPES, resolution=3)
    half = {name: value.bfloat16() for name, value in features().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pooler(half, BOXES).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pre_kernel": 4}, "pre_kernel must be odd and at least 1, got 4"),
        ({"resolution": 0}, "resolution must be at least 1, got 0"),
        ({"sampling_ratio": -1}, "sampling_ratio must be 0"),
        ({"post": "attention"}, "post must be non_local, conv or null, got 'attention'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GRoIE(SHAPES, **options)


def test_levels_of_different_width_are_refused():
    with pytest.raises(ValueError, match="must be equally wide"):
        GRoIE({"res2": FeatureShape(4, 4), "res3": FeatureShape(8, 8)})
