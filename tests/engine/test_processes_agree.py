"""Two real processes: they evaluate one model, stop together, and exchange gradients once a step."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from frcnn import distributed
from frcnn.engine.durations import Duration
from frcnn.engine.hooks import EMA, Evaluate, NaNGuard, SaveCheckpoint, ValidationLoss
from frcnn.engine.optim import SGD
from frcnn.engine.options import TrainerOptions
from frcnn.engine.roles import Hook, Schedule
from frcnn.engine.trainer import Trainer
from frcnn.engine.validation import TestSet
from frcnn.errors import UserError
from frcnn.evaluation.roles import EvaluationResult
from frcnn.structures import Batch, Detections, Output

NO_INDEX = torch.zeros(0, dtype=torch.int64)
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), NO_INDEX, NO_INDEX)


class NormedDetector(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.evaluated = []  # the running mean at every batch that was evaluated

    def forward(self, batch):
        if not self.training:
            self.evaluated.append(self.norm.running_mean.clone())
        images = self.norm(torch.stack(list(batch.images)))
        detections = None if self.training else [NOTHING] * len(batch)
        return Output(detections, {"loss": (images * torch.stack(list(batch.images))).mean()})


class OwnLoader:
    """Each process has images of its own."""

    epoch_length = 4.0

    def __iter__(self):
        generator = torch.Generator().manual_seed(distributed.rank())
        while True:
            images = list(torch.rand(4, 3, 2, 2, generator=generator))
            yield Batch(images, [(2, 2)] * 4, [(2, 2)] * 4, [4 * distributed.rank() + i for i in range(4)])


class Constant(Schedule):
    def __call__(self, iteration, total, epoch_length):
        return 1.0


class NoEvaluator:
    metric_names = ("bbox/AP",)

    def __call__(self, detections, *, weights_loaded=None):
        return EvaluationResult({"bbox/AP": 1.0})


class Silent(Evaluate):
    def after_evaluation(self, trainer, evaluation):
        pass


class PoisonsTheSecondProcess(Hook):
    """Makes one loss of one process NaN, and leaves its gradient as it is."""

    order = -1

    def after_backward(self, trainer):
        if trainer.iteration == 2 and distributed.rank() == 1:
            trainer.facts.losses["loss"] = torch.tensor(float("nan"))


def trainer_of(folder, hooks, **options):
    torch.manual_seed(0)
    model = NormedDetector()
    return Trainer(
        model,
        SGD(model, lr=0.1, momentum=0.0, weight_decay=0.0),
        Constant(),
        OwnLoader(),
        [TestSet("val", None, [next(iter(OwnLoader()))], NoEvaluator())],
        hooks,
        TrainerOptions(Duration(4, "it"), **options),
        device=torch.device("cpu"),
        folder=folder,
    )


def evaluate_with(folder, hooks):
    trainer = trainer_of(folder, hooks)
    trainer.train()
    return torch.stack(trainer.evaluated_model.evaluated)


def gradient_exchanges(folder):
    """How often a step of two parts exchanges gradients, and the weight that comes of it."""
    trainer = trainer_of(folder, {}, accumulate=2)
    prepare, exchanges = trainer._prepared_model, []

    def counted():
        network = prepare()

        def hook(_, bucket):
            exchanges.append(bucket.index())
            return dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future().then(lambda f: f.value()[0])

        network.register_comm_hook(None, hook)
        return network

    trainer._prepared_model = counted
    trainer.train()
    return len(exchanges), trainer.model.norm.weight.detach().clone()


def stop_together(folder):
    trainer = trainer_of(folder, {"guard": NaNGuard(), "poison": PoisonsTheSecondProcess(), "save": SaveCheckpoint()})
    try:
        trainer.train()
    except UserError as error:
        return str(error), trainer.iteration
    return "went on", trainer.iteration


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    folder = Path(folder)
    every = Duration(1, "it")
    found = {
        "evaluate": evaluate_with(folder, {"evaluate": Silent(every=every)}),
        "average": evaluate_with(folder, {"ema": EMA(decay=0.5), "evaluate": Silent(every=every)}),
        "losses": evaluate_with(folder, {"loss": ValidationLoss(every=every)}),
        "exchanges": gradient_exchanges(folder),
        "stop": stop_together(folder),
    }
    torch.save(found, folder / f"found_{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(process, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"found_{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("what", ["evaluate", "average", "losses"])
def test_every_process_evaluates_the_same_running_statistics(found, what):
    first, second = (values[what] for values in found)
    assert len(first) == 4
    assert not torch.equal(first[0], first[1])  # they move
    assert torch.equal(first, second)


def test_parts_of_a_step_exchange_gradients_once(found):
    (first, weight), (second, other) = (values["exchanges"] for values in found)
    assert first == second == 4  # steps, each of two parts
    assert torch.equal(weight, other)


def test_a_loss_that_is_not_a_number_on_one_process_stops_all(found):
    for message, iteration in (values["stop"] for values in found):
        assert "iteration 2: loss is not a finite number (image ids [4, 5, 6, 7]" in message
        assert iteration == 2
