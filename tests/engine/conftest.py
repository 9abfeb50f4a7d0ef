"""A detector of two numbers, so that what the loop does can be checked by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from frcnn.engine.durations import Duration
from frcnn.engine.optim import SGD
from frcnn.engine.options import TrainerOptions
from frcnn.engine.roles import Schedule
from frcnn.engine.trainer import Trainer
from frcnn.engine.validation import TestSet
from frcnn.evaluation.roles import EvaluationResult
from frcnn.structures import Batch, Detections, Output

NO_INDEX = torch.zeros(0, dtype=torch.int64)
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), NO_INDEX, NO_INDEX)


class ToyDetector(nn.Module):
    """loss = (weight * image - 1)^2 + bias^2, averaged over the batch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.bias = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("batches_seen", torch.tensor(0))  # a statistic that a training forward changes

    def forward(self, batch):
        self.batches_seen += self.training
        images = torch.stack(list(batch.images)).mean(dim=(1, 2, 3))
        return Output(
            None if self.training else [NOTHING] * len(batch),
            {
                "loss_fit": (self.weight * images - 1).square().mean(),
                "loss_bias": self.bias.square(),
                "rpn/num_positive": images.sum().detach(),
            },
        )


class ToyLoader:
    """Batches of two 1x1 images whose values depend on their position alone."""

    epoch_length = 4.0

    def __init__(self, start=0):
        self.start = start

    def __iter__(self):
        position = self.start
        while True:
            values = [0.1 * (position % 7), 0.3 + 0.05 * (position % 3)]
            yield Batch(
                [torch.full((3, 1, 1), v) for v in values], [(1, 1)] * 2, [(1, 1)] * 2, [2 * position, 2 * position + 1]
            )
            position += 1


class Constant(Schedule):
    def __call__(self, iteration, total, epoch_length):
        return 1.0


class ToyEvaluator:
    """Gives the next of some APs at each evaluation, or raises it."""

    metric_names = ("bbox/AP",)

    def __init__(self, values):
        self.values = list(values)

    def __call__(self, detections, *, weights_loaded=None):
        value = self.values.pop(0)
        if isinstance(value, BaseException):
            raise value
        return EvaluationResult({"bbox/AP": value})


@pytest.fixture
def toy(tmp_path):
    def make(hooks=None, aps=(), duration="8it", start=0, folder=None, test_batches=(), schedule=None, **options):
        folder = folder or tmp_path
        folder.mkdir(exist_ok=True)
        model = ToyDetector()
        dataset = SimpleNamespace(categories=[])
        test_sets = [TestSet("val", dataset, list(test_batches), ToyEvaluator(aps))] if aps else []
        return Trainer(
            model,
            SGD(model, lr=0.1, momentum=0.9, weight_decay=0.0),
            schedule or Constant(),
            ToyLoader(start),
            test_sets,
            hooks or {},
            TrainerOptions(Duration.from_text(duration), **options),
            device=torch.device("cpu"),
            folder=folder,
        )

    return make


@pytest.fixture
def a_batch():
    return next(iter(ToyLoader()))


@pytest.fixture
def resume():
    """Goes on from a checkpoint in the trainer's folder to the end."""

    def run(trainer, iteration):
        state = torch.load(trainer.folder / f"checkpoint_{iteration:08d}.pth", weights_only=True)
        trainer.model.load_state_dict(state["model"])
        trainer.load_state_dict(state)
        trainer.train()

    return run
