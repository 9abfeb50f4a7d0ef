"""PreciseBN by hand: after it, a norm has the mean and variance of exactly what it was shown."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from frcnn.engine.hooks.precise_bn import PreciseBN, learning_batch_norms, update_statistics
from frcnn.modeling.layers import FrozenBatchNorm2d
from frcnn.structures import Batch, Output


class Normed(nn.Module):
    """A batch norm that is used twice in a forward, as an RPN head is on two levels."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.frozen = FrozenBatchNorm2d(1)
        self.dropout = nn.Dropout(0.5)
        self.modes = set()

    def forward(self, batch):
        assert batch.targets is None
        self.modes.add((self.training, self.norm.training, self.dropout.training))
        x = torch.stack(list(batch.images))[:, :1]
        self.norm(x)
        self.norm(x[..., :1] + 10)
        return Output([], {})


class Loader:
    def from_the_start(self):
        for value in range(100):
            yield Batch([torch.tensor([[[value, value + 1.0]] * 2])], [(2, 2)], [(2, 2)], [value])


def trainer_of(model):
    return SimpleNamespace(
        loader=Loader(),
        device=torch.device("cpu"),
        options=SimpleNamespace(amp="off"),
        model=model,
        evaluated_model=model,
        is_due=lambda every: every is not None,
    )


def test_statistics_are_those_of_all_that_was_seen():
    model = Normed().train()
    model.norm.num_batches_tracked.fill_(7)
    update_statistics(model, trainer_of(model), num_batches=2)
    # first use: twice 0 1 and 1 2; second use: twice 10 and 11
    seen = torch.tensor([0.0, 1, 1, 2, 10, 11] * 2)
    assert model.norm.running_mean.item() == pytest.approx(seen.mean().item())
    assert model.norm.running_var.item() == pytest.approx(seen.var().item())
    assert model.norm.num_batches_tracked == 7
    assert model.modes == {(False, True, False)}  # only the norm is in training mode
    assert model.training and model.dropout.training


def test_the_variance_is_that_of_what_all_processes_have_seen(monkeypatch):
    monkeypatch.setattr("frcnn.distributed.world_size", lambda: 2)  # the other process has seen the same
    model = Normed().train()
    update_statistics(model, trainer_of(model), num_batches=2)
    seen = torch.tensor([0.0, 1, 1, 2, 10, 11] * 4)
    assert model.norm.running_var.item() == pytest.approx(seen.repeat(1).var().item())


def test_an_error_leaves_the_statistics_as_they_were():
    class Failing(Normed):
        def forward(self, batch):
            super().forward(batch)
            raise RuntimeError("no")

    model = Failing()
    with pytest.raises(RuntimeError, match="no"):
        update_statistics(model, trainer_of(model), num_batches=2)
    assert (model.norm.running_mean.item(), model.norm.running_var.item()) == (0.0, 1.0)
    assert not model.norm._forward_pre_hooks


def test_frozen_norms_do_not_count(caplog):
    model = nn.Sequential(FrozenBatchNorm2d(3))
    assert learning_batch_norms(model) == []
    PreciseBN().before_train(trainer_of(model))
    assert "no batch norm that learns its statistics" in caplog.text


def test_it_happens_where_it_is_due():
    model = Normed()
    PreciseBN(every=None, num_batches=2).between_steps(trainer_of(model))
    assert model.norm.running_mean.item() == 0.0
    PreciseBN(every="1it", num_batches=2).between_steps(trainer_of(model))
    assert model.norm.running_mean.item() != 0.0


def test_a_number_of_batches_below_one_is_refused():
    with pytest.raises(ValueError, match="num_batches must be at least 1, got 0"):
        PreciseBN(num_batches=0)
