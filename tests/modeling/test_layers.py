"""Norm layers by name, a convolution with its norm, freezing."""

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from frcnn.modeling.layers import ConvNorm, FrozenBatchNorm2d, GroupNorm, freeze, make_channels_last_norm, make_norm


def frozen_norm_by_hand(eps: float = 0.0) -> FrozenBatchNorm2d:
    norm = FrozenBatchNorm2d(1, eps)
    norm.weight.fill_(3.0)
    norm.bias.fill_(1.0)
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    return norm


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_norm_by_hand(requires_grad):
    x = torch.full((1, 1, 1, 1), 6.0, requires_grad=requires_grad)
    # (6 - 2) / sqrt(4) * 3 + 1
    assert frozen_norm_by_hand()(x).item() == pytest.approx(7.0)
    # (6 - 2) / sqrt(4 + 12) * 3 + 1
    assert frozen_norm_by_hand(eps=12.0)(x).item() == pytest.approx(4.0)


def test_frozen_norm_learns_nothing_and_passes_the_gradient_on():
    norm = frozen_norm_by_hand().train()
    x = torch.randn(4, 1, 2, 2, requires_grad=True)
    norm(x).sum().backward()
    assert list(norm.parameters()) == []
    assert torch.equal(x.grad, torch.full_like(x, 1.5))  # 3 / sqrt(4)
    assert norm.running_mean.item() == 2.0


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_norm_keeps_the_precision_of_its_input(requires_grad):
    x = torch.randn(1, 1, 2, 2).bfloat16().requires_grad_(requires_grad)
    assert frozen_norm_by_hand()(x).dtype == torch.bfloat16


def test_a_variance_too_small_for_half_precision_does_not_become_nan():
    norm = frozen_norm_by_hand()
    norm.running_var.fill_(1e-9)
    norm.weight.fill_(1e-5)
    x = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float16, requires_grad=True)
    assert norm(x).item() == pytest.approx(1.0 + 1e-5 / 1e-9**0.5, rel=1e-2)


def test_frozen_norm_takes_the_weights_of_a_batch_norm():
    trained = nn.BatchNorm2d(8).train()
    trained(torch.randn(4, 8, 3, 3) * 2 + 1)
    frozen = FrozenBatchNorm2d(8)
    frozen.load_state_dict(trained.state_dict())
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(frozen(x), trained.eval()(x))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("FrozenBN", FrozenBatchNorm2d), ("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm), ("GN", GroupNorm)],
)
def test_norms_by_name(name, kind):
    norm = make_norm(name, 64, eps=0.25)
    assert type(norm) is kind
    assert norm.eps == 0.25


def test_group_norm_has_32_groups_where_they_divide_the_channels():
    assert make_norm("GN", 256).num_groups == 32
    assert make_norm("GN", 24).num_groups == 8


def test_norm_mistakes_are_explained():
    with pytest.raises(ValueError, match="norm must be one of FrozenBN, BN, SyncBN, GN, LN, got 'IN'"):
        make_norm("IN", 64)
    with pytest.raises(ValueError, match="eps must be >= 0, got -1"):
        make_norm("BN", 64, eps=-1)


def test_conv_norm_keeps_the_size_and_has_a_bias_only_without_norm():
    x = torch.randn(1, 3, 9, 12)
    assert ConvNorm(3, 8, 3, dilation=2)(x).shape == (1, 8, 9, 12)
    assert ConvNorm(3, 8, 3, stride=2, norm="BN", relu=True)(x).shape == (1, 8, 5, 6)
    assert set(ConvNorm(3, 8, 1).state_dict()) == {"weight", "bias"}
    assert set(ConvNorm(3, 8, 1, norm="GN").state_dict()) == {"weight", "norm.weight", "norm.bias"}


def test_freezing_keeps_what_the_batch_norm_learnt():
    block = nn.Sequential(ConvNorm(3, 8, 3, norm="BN"), ConvNorm(8, 8, 3, norm="GN"))
    block.train()(torch.randn(4, 3, 5, 5))
    x = torch.randn(2, 3, 5, 5)
    before = block.eval()(x)
    frozen = freeze(block).train()
    torch.testing.assert_close(frozen(x), before)
    assert isinstance(frozen[0].norm, FrozenBatchNorm2d)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_no_block_of_a_frozen_part_is_left_out():
    block = freeze(nn.Sequential(StochasticDepth(0.9, "row"))).train()
    assert torch.equal(block(torch.ones(50, 1)), torch.ones(50, 1))


def test_freezing_a_batch_norm_itself_gives_its_replacement():
    assert isinstance(freeze(nn.BatchNorm2d(4)), FrozenBatchNorm2d)


def test_layer_norm_looks_at_the_channels_of_one_position():
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).reshape(1, 2, 1, 2)  # (1, 3) and (0, 4): both are (-1, 1) when normed
    normed = make_norm("LN", 2, eps=0.0)(x)
    assert normed.shape == x.shape
    assert normed[0, :, 0, 0].tolist() == pytest.approx([-1.0, 1.0])
    assert normed[0, :, 0, 1].tolist() == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize("name", ["BN", "GN", "LN"])
def test_a_channels_last_norm_is_the_norm_of_the_turned_map(name):
    x = torch.randn(2, 3, 5, 8)
    expected = make_norm(name, 8)(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(make_channels_last_norm(name, 8)(x), expected)


def test_groups_are_convolved_by_themselves():
    conv = ConvNorm(4, 4, 1, groups=4)
    assert conv.weight.shape == (4, 1, 1, 1)


def test_group_norm_of_a_channels_last_map_behind_frozen_layers():
    """In torch 2.11 the backward pass of this crashed the process."""
    norm = make_norm("GN", 8)
    image = torch.randn(2, 5, 5, 8).permute(0, 3, 1, 2)
    norm(image).square().sum().backward()
    assert norm.weight.grad.shape == (8,)


@pytest.mark.parametrize("size", [(1, 1), (5, 1)])
def test_a_step_over_one_column_has_the_right_gradient_in_bfloat16(size):
    """torch's own is NaN or garbage in most tries."""
    for _ in range(10):
        conv, x = ConvNorm(16, 16, 3, stride=2), torch.randn(2, 16, *size)
        (expected,) = torch.autograd.grad(conv(x).sum(), conv.weight)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv(x)
        assert y.dtype == torch.bfloat16
        (found,) = torch.autograd.grad(y.float().sum(), conv.weight)
        torch.testing.assert_close(found, expected)
