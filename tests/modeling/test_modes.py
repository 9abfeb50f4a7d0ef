import pytest
import torch
from torch import nn

from frcnn.modeling.modes import evaluation_mode, unobserved


def make():
    return nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())


def modes(module):
    return [module.training, module[0].training, module[1].training]


def test_unobserved_restores_each_module():
    module = make()
    with unobserved(module):
        assert modes(module) == [False, False, False]
        assert not torch.is_grad_enabled()
    assert modes(module) == [True, True, False]
    assert torch.is_grad_enabled()


def test_modes_are_restored_after_an_error():
    module = make()
    with pytest.raises(KeyError), evaluation_mode(module):
        raise KeyError
    assert modes(module) == [True, True, False]
