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
from frcnn.structures import Batch, Output


class ToyDetector(nn.Module):
    """loss = (weight * image - 1)^2 + bias^2, averaged over the batch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.bias = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        images = torch.stack(list(batch.images)).mean(dim=(1, 2, 3))
        return Output(
            None,
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
    """Gives the next of some APs at each evaluation."""

    metric_names = ("bbox/AP",)

    def __init__(self, values):
        self.values = list(values)

    def __call__(self, detections, *, weights_loaded=None):
        return EvaluationResult({"bbox/AP": self.values.pop(0)})


@pytest.fixture
def toy(tmp_path):
    def make(hooks=None, aps=(), duration="8it", start=0, folder=None, **options):
        folder = folder or tmp_path
        folder.mkdir(exist_ok=True)
        model = ToyDetector()
        dataset = SimpleNamespace(categories=[])
        test_sets = [TestSet("val", dataset, [], ToyEvaluator(aps))] if aps else []
        return Trainer(
            model,
            SGD(model, lr=0.1, momentum=0.9, weight_decay=0.0),
            Constant(),
            ToyLoader(start),
            test_sets,
            hooks or {},
            TrainerOptions(Duration.from_text(duration), **options),
            device=torch.device("cpu"),
            folder=folder,
        )

    return make
