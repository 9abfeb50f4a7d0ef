import pytest
import torch

from frcnn.modeling.box_heads import ConvBoxHead, TwoMLPHead


def test_two_mlp_head_reads_channels_before_rows_and_columns():
    # Only channel 1, row 0, column 1 has a weight: index 1 * 4 + 0 * 2 + 1 = 5 of the flattened input.
    head = TwoMLPHead(2, 2, width=1)
    with torch.no_grad():
        head.fc1.weight.zero_()
        head.fc1.weight[0, 5] = 2.0
        head.fc2.weight.fill_(10.0)
    roi_features = torch.zeros(1, 2, 2, 2)
    roi_features[0, 1, 0, 1] = 3.0
    assert head(roi_features).tolist() == [[60.0]]
    assert head(-roi_features).tolist() == [[0.0]]


def test_xavier_and_pytorch_initialisation():
    torch.manual_seed(0)
    weight = TwoMLPHead(64, 2, width=512).fc1.weight  # 256 inputs
    assert weight.var().item() == pytest.approx(1 / 256, rel=0.02)
    assert weight.abs().max().item() <= (3 / 256) ** 0.5
    assert TwoMLPHead(64, 2, width=512).fc1.bias.abs().max() == 0
    plain = TwoMLPHead(64, 2, width=512, init="pytorch").fc1
    assert plain.weight.var().item() == pytest.approx(1 / (3 * 256), rel=0.02)
    assert plain.bias.abs().max() > 0


def test_4conv1fc():
    head = ConvBoxHead(8, 7, conv_channels=16, fc_width=32, norm="GN")
    assert [type(conv.norm).__name__ for conv in head.convs] == ["GroupNorm"] * 4
    assert head.convs[0].bias is None
    assert head.out_channels == 32
    assert head(torch.randn(3, 8, 7, 7)).shape == (3, 32)
    without_norm = ConvBoxHead(8, 7, num_convs=1, conv_channels=16, fc_width=32)
    assert without_norm.convs[0].bias.abs().max() == 0


def test_a_head_without_layers_flattens():
    head = ConvBoxHead(2, 3, num_convs=0, num_fcs=0)
    assert head.out_channels == 18
    assert head(torch.ones(1, 2, 3, 3)).shape == (1, 18)


@pytest.mark.parametrize("norm", [None, "BN", "GN", "FrozenBN"])
def test_no_rois_have_a_gradient_and_leave_statistics_alone(norm):
    head = ConvBoxHead(4, 3, num_convs=1, conv_channels=4, fc_width=5, norm=norm)
    before = {name: value.clone() for name, value in head.state_dict().items() if "running" in name}
    out = head(torch.zeros(0, 4, 3, 3))
    assert out.shape == (0, 5)
    out.sum().backward()
    assert head.fcs[0].weight.grad.abs().sum() == 0
    for name, value in before.items():
        assert torch.equal(head.state_dict()[name], value)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        TwoMLPHead(4, 7, width=0)
    with pytest.raises(ValueError, match="0 or more, got -1 and 1"):
        ConvBoxHead(4, 7, num_convs=-1)
    with pytest.raises(ValueError, match="conv_channels and fc_width must be at least 1, got 0 and 1024"):
        ConvBoxHead(4, 7, conv_channels=0)
