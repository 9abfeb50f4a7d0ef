"""Options of a run, each as a person would turn it on."""

import json
from pathlib import Path

import pytest
import torch

TINY = Path(__file__).parent / "tiny.yaml"
QUIET = ("hooks.evaluate=null", "hooks.best=null", "hooks.pictures=null", "data.train.num_workers=0")


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(sorted(folder.glob("checkpoint_*.pth"))[-1], weights_only=True)["model"]


@pytest.fixture
def train(frcnn, tmp_path):
    """Trains some steps with overrides and returns the run folder and what was printed."""

    def run(*overrides, name="run", quiet=QUIET, config=TINY):
        folder = tmp_path / name
        code, out, err = frcnn("train", "--config-file", config, "--output-dir", folder, *quiet, *overrides)
        assert code == 0, err
        return folder, out

    return run


def test_a_validation_loss_disturbs_nothing(train):
    plain, _ = train("trainer.duration=4it", name="plain")
    watched, out = train(
        "trainer.duration=4it", "hooks.loss.name=ValidationLoss", "hooks.loss.every=1it", name="watched"
    )
    assert "val: loss" in out
    for name, value in last_weights(plain).items():
        assert torch.equal(value, last_weights(watched)[name]), name
    lines = [json.loads(line) for line in (watched / "metrics.jsonl").read_text().splitlines()]
    assert sum("val/loss_classifier" in line for line in lines) == 4


def test_workers_change_nothing(train):
    alone, _ = train("trainer.duration=3it", "data.train.num_workers=0", name="alone")
    helped, _ = train(
        "trainer.duration=3it", "data.train.num_workers=2", "data.train.start_method=forkserver", name="helped"
    )
    for name, value in last_weights(alone).items():
        assert torch.equal(value, last_weights(helped)[name]), name


def test_several_test_sets_in_one_run(train, tmp_path):
    config = tmp_path / "two_sets.yaml"
    config.write_text(
        f"_BASE_: {TINY}\n"
        "data:\n"
        "  test:\n"
        "    small: {dataset: {name: CocoDataset, annotations: tiny/test.json, images: tiny/images},\n"
        "            transforms: [{name: ResizeShortestEdge, sizes: [48], max_size: 64}], num_workers: 0}\n"
    )
    quiet = ("hooks.pictures=null", "hooks.best.metric=small/bbox/AP50", "data.train.num_workers=0")
    folder, out = train("trainer.duration=2it", quiet=quiet, config=config)
    metrics = json.loads((folder / "evaluation.json").read_text())
    assert {"val/bbox/AP", "small/bbox/AP"} <= set(metrics)
    assert (folder / "detections_small.json").exists()
    assert "best so far: small/bbox/AP50" in out


def test_tensorboard_files_are_written_if_asked_for(train):
    pytest.importorskip("tensorboard")
    folder, _ = train("trainer.duration=2it", "hooks.log.tensorboard=true")
    assert list((folder / "tensorboard").glob("events.*"))


def test_a_profile_of_some_steps(train):
    folder, out = train(
        "trainer.duration=4it", "hooks.profile.name=Profile", "hooks.profile.start=1", "hooks.profile.steps=2"
    )
    assert "profile of 2 steps" in out
    assert json.loads((folder / "profile.json").read_text())["traceEvents"]


def test_channels_last_and_accumulation_train(train):
    folder, _ = train("trainer.duration=2it", "trainer.channels_last=true", "trainer.accumulate=2")
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < loss < 10 for loss in losses)


@pytest.mark.slow
def test_a_compiled_backbone_gives_the_losses_of_an_eager_one(train):
    eager, _ = train("trainer.duration=2it", name="eager")
    compiled, _ = train("trainer.duration=2it", "trainer.compile=true", name="compiled")
    for ours, theirs in zip(*((f / "metrics.jsonl").read_text().splitlines() for f in (eager, compiled)), strict=True):
        assert json.loads(theirs)["loss"] == pytest.approx(json.loads(ours)["loss"], rel=1e-3)
