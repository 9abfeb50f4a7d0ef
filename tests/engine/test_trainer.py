import json
import signal
from dataclasses import replace

import pytest
import torch

from frcnn.engine.durations import Duration
from frcnn.engine.hooks import EMA, LogMetrics, NaNGuard, Profile, SaveCheckpoint, SavePictures
from frcnn.engine.metrics import MetricsFile
from frcnn.engine.options import StepFacts
from frcnn.engine.roles import Hook, Schedule
from frcnn.engine.trainer import total_loss
from frcnn.errors import UserError


class Recorder(Hook):
    def __init__(self, order=50, at=None, do=None):
        self.order = order
        self.seen = []
        self.at = at
        self.do = do

    def after_step(self, trainer):
        self.seen.append(trainer.iteration)
        if trainer.iteration == self.at:
            self.do(trainer)


def test_a_model_without_losses_has_nothing_to_learn():
    with pytest.raises(UserError, match=r"nothing to learn: the model gives no losses.*it gives rpn/recall"):
        total_loss({"rpn/recall": torch.tensor(1.0)})


def test_only_losses_are_summed():
    losses = {"loss_a": torch.tensor(1.0), "loss_b": torch.tensor(2.0), "rpn/num_positive": torch.tensor(50.0)}
    assert total_loss(losses) == 3


def test_one_step_is_the_gradient_step_by_hand(toy):
    trainer = toy(duration="1it")
    trainer.train()
    # images are 0.0 and 0.3: d/dw mean((0.5 x - 1)^2) = mean(2 x (0.5 x - 1)) = 0.3 * (0.15 - 1) = -0.255
    assert trainer.model.weight.item() == pytest.approx(0.5 + 0.1 * 0.255)
    assert trainer.model.bias.item() == pytest.approx(1.0 - 0.1 * 2.0)


def test_accumulated_parts_give_the_step_of_the_whole_batch(toy, tmp_path):
    whole, parts = toy(), toy(accumulate=2, folder=tmp_path / "parts")
    whole.train()
    parts.train()
    torch.testing.assert_close(dict(whole.model.named_parameters()), dict(parts.model.named_parameters()))


def test_a_batch_that_cannot_be_split_says_so(toy):
    with pytest.raises(ValueError, match="2 images cannot be split into 3 equal parts"):
        toy(accumulate=3).train()


def test_clipping_limits_the_global_norm_and_reports_the_norm_before(toy):
    trainer = toy(duration="1it", clip_grad_norm=0.5)
    trainer.train()
    assert trainer.facts.grad_norm.item() == pytest.approx((0.255**2 + 2.0**2) ** 0.5)
    step = torch.stack([trainer.model.weight - 0.5, trainer.model.bias - 1.0]).norm().item()
    assert step == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_hooks_run_by_their_order_and_a_stop_ends_after_the_step(toy):
    calls = []
    first, last = Recorder(order=100), Recorder(order=1)
    first.do = last.do = lambda trainer: None
    first.after_step = lambda trainer: calls.append("first in the config")
    last.after_step = lambda trainer: calls.append("first by order")
    stopper = Recorder(at=3, do=lambda trainer: trainer.stop("enough"))
    trainer = toy({"a": first, "b": last, "c": stopper})
    trainer.train()
    assert calls[:2] == ["first by order", "first in the config"]
    assert trainer.iteration == 3
    assert trainer.stop_reason == "enough"


def test_intervals_in_epochs_fall_on_the_step_that_completes_them(toy):
    trainer = toy(duration="10it")  # an epoch has 4 iterations
    due = []
    trainer.hooks = {"r": Recorder()}
    trainer.hooks["r"].after_step = lambda t: due.append(t.iteration) if t.is_due(Duration(0.5, "ep")) else None
    trainer.train()
    assert due == [2, 4, 6, 8, 10]


def test_an_interval_always_falls_on_the_end(toy):
    trainer = toy()
    trainer.iteration = trainer.max_iterations
    assert trainer.is_due(None)
    assert trainer.is_due(Duration(1000, "it"))


def test_a_signal_finishes_the_step_and_saves(toy, tmp_path):
    interrupt = Recorder(at=3, do=lambda trainer: signal.raise_signal(signal.SIGTERM))
    trainer = toy({"interrupt": interrupt, "save": SaveCheckpoint(every=Duration(100, "it"))})
    trainer.train()
    assert trainer.interrupted
    assert trainer.stop_reason == "interrupted by SIGTERM"
    assert (tmp_path / "checkpoint_00000003.pth").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_error_of_the_data_loses_no_step(toy, tmp_path):
    trainer = toy({"save": SaveCheckpoint(every=Duration(100, "it"))})
    good = iter(trainer.loader)

    class Broken:
        epoch_length = 4.0

        def __iter__(self):
            yield from (next(good) for _ in range(3))
            raise UserError("images/4.jpg: truncated")

    trainer.loader = Broken()
    with pytest.raises(UserError, match="truncated"):
        trainer.train()
    assert torch.load(tmp_path / "checkpoint_00000003.pth", weights_only=True)["iteration"] == 3


def test_a_loss_that_is_not_a_number_stops_before_the_weights_change(toy, tmp_path):
    trainer = toy({"guard": NaNGuard(), "poison": Recorder(at=2, do=lambda t: t.model.bias.data.fill_(float("nan")))})
    with pytest.raises(UserError) as caught:
        trainer.train()
    assert "iteration 2: loss_bias is not a finite number" in str(caught.value)
    assert "image ids [4, 5]" in str(caught.value)
    assert trainer.iteration == 2
    assert torch.isfinite(trainer.model.weight)
    dump = json.loads((tmp_path / "nan_dump.json").read_text())
    assert dump["image_ids"] == [4, 5]
    assert dump["losses"]["loss_bias"] == "nan"
    assert dump["lr"] == 0.1


def poisoned_gradient(iteration, value=float("nan")):
    """From an iteration on, the loss is finite and a gradient is not."""

    def begin(trainer):
        trainer.model.bias.register_hook(lambda gradient: gradient * value)

    return Recorder(at=iteration, do=begin)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(toy, value, clip):
    trainer = toy({"guard": NaNGuard(), "poison": poisoned_gradient(2, value)}, clip_grad_norm=clip)
    with pytest.raises(UserError, match="iteration 2: the gradient of bias is not a finite number") as caught:
        trainer.train()
    assert "No checkpoint had been saved yet" in str(caught.value)
    assert trainer.iteration == 2
    assert all(torch.isfinite(value) for value in trainer.model.state_dict().values())


def test_the_learning_rate_is_not_blamed_before_it_has_changed_anything(toy):
    trainer = toy({"guard": NaNGuard()})
    trainer.model.bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(
        UserError, match=r"iteration 0: the gradient of bias (.|\n)*learning rate has hardly changed a weight"
    ):
        trainer.train()


class SlowStart(Schedule):
    """A tenth of the learning rate, then two tenths, ..."""

    def __call__(self, iteration, total, epoch_length):
        return min(1.0, 0.1 * (iteration + 1))


@pytest.mark.parametrize(("iteration", "blamed"), [(1, False), (3, False), (5, True), (11, True)])
def test_the_learning_rate_is_not_blamed_while_it_is_low(toy, iteration, blamed):
    hooks = {"guard": NaNGuard(), "poison": poisoned_gradient(iteration)}
    trainer = toy(hooks, duration="12it", schedule=SlowStart())
    with pytest.raises(UserError) as caught:
        trainer.train()
    assert ("Likely the learning rate is too high" in str(caught.value)) == blamed
    assert ("learning rate has hardly changed a weight" in str(caught.value)) != blamed


def test_a_failing_step_is_not_saved_and_the_last_checkpoint_stays(toy, tmp_path):
    save = SaveCheckpoint(every=Duration(2, "it"), keep=1)
    trainer = toy({"guard": NaNGuard(), "save": save, "poison": poisoned_gradient(3)})
    with pytest.raises(UserError, match=r"checkpoint_00000002\.pth is from before it"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("*.pth")] == ["checkpoint_00000002.pth"]
    state = torch.load(tmp_path / "checkpoint_00000002.pth", weights_only=True)
    assert state["model"]["batches_seen"] == 2  # the failing forward pass was the fourth
    assert trainer.model.batches_seen == 4


def test_under_fp16_the_scaler_skips_a_gradient_that_is_not_finite(toy):
    trainer = toy({"guard": NaNGuard(), "poison": poisoned_gradient(2)}, duration="4it")
    trainer.options = replace(trainer.options, amp="fp16")
    trainer.facts = StepFacts({"loss": torch.tensor(1.0)}, torch.tensor(float("inf")), 0.1, 0.0, 0.0)
    trainer.hooks["guard"].after_backward(trainer)


def test_ema_is_the_average_by_hand(toy):
    weights = []
    watch = Recorder(order=90)
    watch.after_step = lambda trainer: weights.append(trainer.model.weight.item())
    trainer = toy({"ema": EMA(decay=0.75), "watch": watch}, duration="3it")
    trainer.train()
    expected = weights[0]  # the first update copies
    for weight in weights[1:]:
        expected = 0.75 * expected + 0.25 * weight
    assert trainer.evaluated_model.weight.item() == pytest.approx(expected)


def test_going_on_from_a_checkpoint_is_the_uninterrupted_run_bit_by_bit(toy, resume, tmp_path):
    def hooks():
        return {
            "log": LogMetrics(every=Duration(3, "it")),
            "ema": EMA(decay=0.9),
            "save": SaveCheckpoint(every=Duration(5, "it"), keep=9),
        }

    whole = toy(hooks(), duration="12it", folder=tmp_path / "whole", clip_grad_norm=1.0)
    whole.train()
    stop = Recorder(at=8, do=lambda t: (_ for _ in ()).throw(KeyboardInterrupt()))
    killed = toy({**hooks(), "stop": stop}, duration="12it", folder=tmp_path / "killed", clip_grad_norm=1.0)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = toy(hooks(), duration="12it", start=5, folder=tmp_path / "killed", clip_grad_norm=1.0)
    resume(resumed, 5)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
        assert torch.equal(whole.evaluated_model.state_dict()[name], resumed.evaluated_model.state_dict()[name])
    texts = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "killed")]
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 4


def test_the_log_holds_means_since_the_last_line(toy, tmp_path):
    biases = []
    watch = Recorder()
    watch.after_step = lambda trainer: biases.append(trainer.facts.losses["loss_bias"].item())
    toy({"log": LogMetrics(every=Duration(4, "it")), "watch": watch}).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [4, 8]
    assert lines[0]["loss_bias"] == pytest.approx(sum(biases[:4]) / 4)
    assert lines[1]["loss"] == pytest.approx(lines[1]["loss_bias"] + lines[1]["loss_fit"])
    assert set(json.loads((tmp_path / "timing.jsonl").read_text().splitlines()[0])) >= {
        "images_per_second",
        "data_share",
    }


def test_lines_behind_the_checkpoint_and_unfinished_lines_are_cut(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for iteration in (10, 20, 30):
        file.write(iteration, {"loss": float("nan") if iteration == 10 else 1.0})
    with file.path.open("a") as unfinished:
        unfinished.write('{"iteration": 1')
    assert file.cut_back(20) == 2
    assert [json.loads(line)["iteration"] for line in file.path.read_text().splitlines()] == [10, 20]
    assert json.loads(file.path.read_text().splitlines()[0])["loss"] == "nan"


def test_a_profile_that_training_cuts_short_is_written(toy, tmp_path, caplog):
    caplog.set_level("INFO", logger="frcnn")
    toy({"profile": Profile(start=1, steps=5)}, duration="3it").train()
    assert "profile of 2 steps" in caplog.text
    assert (tmp_path / "profile.json").exists()


def test_a_profile_that_never_began_says_so(toy, tmp_path, caplog):
    toy({"profile": Profile(start=10)}, duration="3it").train()
    assert "no profile: training ended after 3 steps, and Profile.start is 10" in caplog.text
    assert not (tmp_path / "profile.json").exists()


def test_an_interrupted_run_saves_and_draws_nothing(toy, tmp_path):
    interrupt = Recorder(at=2, do=lambda trainer: signal.raise_signal(signal.SIGINT))
    pictures = SavePictures()
    pictures.evaluation = object()  # drawing it would fail
    toy({"pictures": pictures, "interrupt": interrupt, "save": SaveCheckpoint()}, aps=[1.0]).train()
    assert (tmp_path / "checkpoint_00000002.pth").exists()


def test_the_checkpoint_comes_before_the_pictures(toy, tmp_path):
    pictures = SavePictures()
    pictures.evaluation = object()
    with pytest.raises(AttributeError):
        toy({"pictures": pictures, "save": SaveCheckpoint()}, aps=[1.0], duration="2it").train()
    assert (tmp_path / "checkpoint_00000002.pth").exists()
