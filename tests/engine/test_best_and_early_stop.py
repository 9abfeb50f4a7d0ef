import json

import pytest
import torch

from frcnn.engine.durations import Duration
from frcnn.engine.hooks import EMA, BestCheckpoint, EarlyStop, Evaluate, LogMetrics, SaveCheckpoint
from frcnn.engine.roles import Hook
from frcnn.engine.validation import Evaluation
from frcnn.errors import UserError
from frcnn.evaluation.roles import EvaluationResult

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


@pytest.mark.parametrize(("first", "shown"), [(0.0, "0.000"), (None, "n/a")])
def test_best_exists_after_the_first_evaluation_even_without_an_ap(toy, tmp_path, first, shown):
    best = BestCheckpoint()
    toy({"evaluate": EvaluateOnly(every=EVERY_STEP), "best": best}, aps=[first], duration="1it").train()
    assert (tmp_path / "best.pth").exists()
    assert best.shown == shown


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


def test_a_loss_on_a_test_set_can_be_watched(toy, a_batch, tmp_path):
    best = BestCheckpoint(metric="val/loss", higher_is_better=False)
    hooks = {"evaluate": EvaluateOnly(every=EVERY_STEP, losses=True), "best": best}
    trainer = toy(hooks, aps=[1.0, 1.0], duration="2it", test_batches=[a_batch])
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]
    assert lines[1]["val/loss"] == pytest.approx(lines[1]["val/loss_fit"] + lines[1]["val/loss_bias"])
    assert lines[1]["val/loss"] < lines[0]["val/loss"]
    assert (best.best, best.best_iteration) == (lines[1]["val/loss"], 2)


@pytest.mark.parametrize(
    ("metric", "losses", "known"),
    [
        ("val/loss", False, "there are: bbox/AP, val/bbox/AP; losses on the test sets"),
        ("train/loss", True, "there are: bbox/AP, loss, val/bbox/AP, val/loss, loss_fit"),
        ("val/loss_mask", True, "val/loss_fit, val/loss_bias"),
    ],
)
def test_a_loss_that_nothing_gives_is_refused_before_the_first_step(toy, metric, losses, known):
    best = BestCheckpoint(metric=metric, higher_is_better=False)
    trainer = toy({"evaluate": EvaluateOnly(every=EVERY_STEP, losses=losses), "best": best}, aps=[1.0])
    with pytest.raises(UserError, match=known):
        trainer.train()
    assert trainer.iteration == 0


def test_another_wrong_name_is_refused_before_the_first_forward_pass(toy):
    hooks = {"evaluate": EvaluateOnly(every=EVERY_STEP, losses=True), "best": BestCheckpoint(metric="bbox/mAP")}
    trainer = toy(hooks, aps=[1.0])
    with pytest.raises(UserError, match=r"there are: bbox/AP, loss, val/bbox/AP, val/loss$"):
        trainer.train()
    assert trainer.model.batches_seen == 0


def test_a_part_of_the_loss_can_be_watched(toy, a_batch):
    best = BestCheckpoint(metric="loss_fit", higher_is_better=False)
    hooks = {"evaluate": EvaluateOnly(every=EVERY_STEP, losses=True), "best": best}
    toy(hooks, aps=[1.0, 1.0], duration="2it", test_batches=[a_batch]).train()
    assert best.best_iteration > 0


def test_the_highest_loss_is_not_the_best():
    with pytest.raises(ValueError, match="higher_is_better must be false for a loss, and metric is 'val/loss'"):
        BestCheckpoint(metric="val/loss")


def test_asking_an_evaluation_for_another_metric_lists_those_there_are():
    evaluation = Evaluation({"val": EvaluationResult({"bbox/AP": 1.0})}, {}, {"val": {"loss_a": 2.0, "loss_b": 3.0}})
    assert (evaluation.find("bbox/AP"), evaluation.find("loss")) == (1.0, 5.0)
    with pytest.raises(UserError, match="there are: val/bbox/AP, val/loss, val/loss_a, val/loss_b"):
        evaluation.find("segm/AP")


def test_why_a_run_was_stopped_is_in_its_checkpoint_unless_it_was_interrupted(toy, tmp_path):
    hooks = {"evaluate": EvaluateOnly(every=EVERY_STEP), "stop": EarlyStop(patience=1), "save": SaveCheckpoint()}
    trainer = toy(hooks, aps=[10.0, 10.0], duration="5it")
    trainer.train()
    state = torch.load(tmp_path / "checkpoint_00000002.pth", weights_only=True)
    assert "has not improved" in state["stop_reason"]
    trainer.stop_reason = None
    trainer._interrupt("interrupted by SIGINT")
    assert trainer.state_dict()["stop_reason"] is None


@pytest.mark.parametrize(
    "error", [UserError("images/7.jpg: truncated"), KeyboardInterrupt(), RuntimeError("no memory")]
)
def test_an_evaluation_that_fails_loses_no_step_and_is_made_up_for(toy, resume, tmp_path, error):
    aps = [20.0, 10.0, 30.0, 5.0]

    def hooks():
        return {
            "log": LogMetrics(every=Duration(3, "it")),
            "ema": EMA(decay=0.9),
            "evaluate": EvaluateOnly(every=Duration(3, "it")),
            "best": BestCheckpoint(),
            "stop": EarlyStop(patience=4),
            "save": SaveCheckpoint(every=Duration(5, "it"), keep=9),
        }

    whole = toy(hooks(), aps=aps, duration="12it", folder=tmp_path / "whole")
    whole.train()
    failing = toy(hooks(), aps=[20.0, error], duration="12it", folder=tmp_path / "failed")
    with pytest.raises(type(error)):
        failing.train()
    resumed = toy(hooks(), aps=aps[1:], duration="12it", start=6, folder=tmp_path / "failed")
    resume(resumed, 6)
    assert_same_runs(whole, resumed)


def test_what_hooks_remember_of_an_evaluation_that_a_later_hook_breaks_is_forgotten(toy, resume, tmp_path):
    class Breaks(Hook):
        def after_evaluation(self, trainer, evaluation):
            if trainer.iteration == 2 and not (trainer.folder / "broken").exists():
                (trainer.folder / "broken").touch()
                raise OSError("no space left on device")

    def hooks(*more):
        names = {"log": LogMetrics(every=EVERY_STEP), "evaluate": EvaluateOnly(every=EVERY_STEP)}
        return {
            **names,
            "best": BestCheckpoint(),
            "stop": EarlyStop(patience=2),
            "save": SaveCheckpoint(),
            **dict(more),
        }

    aps = [10.0, 9.0, 11.0, 12.0]
    whole = toy(hooks(), aps=aps, duration="4it", folder=tmp_path / "whole")
    whole.train()
    failing = toy(hooks(("breaks", Breaks())), aps=aps, duration="4it", folder=tmp_path / "failed")
    with pytest.raises(OSError, match="no space"):
        failing.train()
    resumed = toy(hooks(), aps=aps[1:], duration="4it", start=2, folder=tmp_path / "failed")
    resume(resumed, 2)
    assert_same_runs(whole, resumed)


def assert_same_runs(whole, resumed):
    states = [trainer.state_dict() for trainer in (resumed, whole)]
    ours, theirs = ((state["model"], state["hooks"], state["optimizer"]["state"]) for state in states)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    texts = [(trainer.folder / "metrics.jsonl").read_text() for trainer in (whole, resumed)]
    assert texts[0] == texts[1]
