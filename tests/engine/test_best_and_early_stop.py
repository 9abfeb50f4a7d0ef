import pytest
import torch

from frcnn.engine.durations import Duration
from frcnn.engine.hooks import BestCheckpoint, EarlyStop, Evaluate
from frcnn.errors import UserError

EVERY_STEP = Duration(1, "it")


class EvaluateOnly(Evaluate):
    """Evaluates without writing tables: the toy data set has no images."""

    def after_evaluation(self, trainer, evaluation):
        pass


def test_best_is_the_step_with_the_highest_metric(toy, tmp_path):
    best = BestCheckpoint()
    toy({"evaluate": EvaluateOnly(every=EVERY_STEP), "best": best}, aps=[10.0, 30.0, 20.0], duration="3it").train()
    assert (best.best, best.best_iteration) == (30.0, 2)
    assert torch.load(tmp_path / "best.pth", weights_only=True)["iteration"] == 2


@pytest.mark.parametrize("first", [0.0, None])
def test_best_exists_after_the_first_evaluation_even_without_an_ap(toy, tmp_path, first):
    toy({"evaluate": EvaluateOnly(every=EVERY_STEP), "best": BestCheckpoint()}, aps=[first], duration="1it").train()
    assert (tmp_path / "best.pth").exists()


def test_early_stop_waits_for_its_patience(toy):
    hooks = {"evaluate": EvaluateOnly(every=EVERY_STEP), "stop": EarlyStop(patience=2, min_delta=0.5)}
    trainer = toy(hooks, aps=[10.0, 12.0, 12.4, 12.5, 50.0], duration="5it")
    trainer.train()
    assert trainer.iteration == 4
    assert (
        "bbox/AP has not improved by more than 0.5 in 2 evaluations (best 12.00 at iteration 2)" in trainer.stop_reason
    )


def test_a_metric_that_no_evaluator_gives_is_refused_before_the_first_step(toy):
    trainer = toy({"best": BestCheckpoint(metric="bbox/mAP")}, aps=[1.0])
    with pytest.raises(UserError, match="no metric is called 'bbox/mAP'; there are: bbox/AP, val/bbox/AP"):
        trainer.train()
    assert trainer.iteration == 0
