import pytest
import torch
from torch import nn

from frcnn.engine.optim import SGD, AdamW, scale_learning_rate


def small_model() -> nn.Module:
    model = nn.Sequential()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.head = nn.Linear(4, 2)
    return model


def group_of(optimizer, name):
    return next(group for group in optimizer.param_groups if name in group["names"])


def test_norm_layers_get_no_weight_decay_and_biases_get_the_weights_one():
    optimizer = SGD(small_model(), lr=0.1, weight_decay=1e-4)
    assert group_of(optimizer, "backbone.0.weight")["weight_decay"] == 1e-4
    assert group_of(optimizer, "backbone.0.bias")["weight_decay"] == 1e-4
    assert group_of(optimizer, "backbone.1.weight")["weight_decay"] == 0
    assert group_of(optimizer, "backbone.1.bias")["weight_decay"] == 0


def test_adamw_decays_neither_norms_nor_biases():
    optimizer = AdamW(small_model(), lr=0.1)
    assert sorted(group_of(optimizer, "head.weight")["names"]) == ["backbone.0.weight", "head.weight"]
    assert group_of(optimizer, "head.bias")["weight_decay"] == 0


def test_learning_rates_by_layer_take_the_longest_prefix():
    optimizer = SGD(small_model(), lr=0.1, lr_multipliers={"backbone": 0.1, "backbone.1": 0.5})
    assert group_of(optimizer, "head.weight")["lr"] == pytest.approx(0.1)
    assert group_of(optimizer, "backbone.0.weight")["lr"] == pytest.approx(0.01)
    assert group_of(optimizer, "backbone.1.weight")["lr"] == pytest.approx(0.05)


def test_a_prefix_that_fits_nothing_is_named():
    with pytest.raises(ValueError, match="'bakcbone'"):
        SGD(small_model(), lr=0.1, lr_multipliers={"bakcbone": 0.1})


def test_frozen_parameters_are_left_out_and_a_frozen_model_is_refused():
    model = small_model()
    model.backbone.requires_grad_(False)
    assert sum(len(group["names"]) for group in SGD(model, lr=0.1).param_groups) == 2
    with pytest.raises(ValueError, match="everything is frozen"):
        SGD(model.requires_grad_(False), lr=0.1)


def test_the_learning_rate_is_scaled_from_its_reference_batch_size_and_says_so():
    optimizer = SGD(small_model(), lr=0.02, reference_batch_size=16, lr_multipliers={"backbone": 0.5})
    line = scale_learning_rate(optimizer, batch_size=4)
    assert line.startswith("learning rate 0.02 at reference batch size 16 -> 0.005 at batch size 4")
    assert group_of(optimizer, "head.weight")["initial_lr"] == pytest.approx(0.005)
    assert group_of(optimizer, "backbone.0.weight")["lr"] == pytest.approx(0.0025)


def test_scaling_can_be_turned_off():
    optimizer = SGD(small_model(), lr=0.02, reference_batch_size=None)
    assert "not scaled" in scale_learning_rate(optimizer, batch_size=4)
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_a_step_moves_weights_as_torch_does():
    torch.manual_seed(0)
    ours, theirs = small_model(), small_model()
    theirs.load_state_dict(ours.state_dict())
    pairs = [
        (SGD(ours, lr=0.1, weight_decay=0.01, norm_weight_decay=None), ours),
        (torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01), theirs),
    ]
    images = torch.randn(2, 3, 5, 5)
    for optimizer, model in pairs:
        for _ in range(3):
            optimizer.zero_grad()
            model.head(model.backbone(images).mean(dim=(2, 3))).square().sum().backward()
            optimizer.step()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])
