import json
import os
from pathlib import Path

import pytest
import torch

import frcnn as package
from frcnn.cli.main import main

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, datasets):
    """One training that learns, shared by the tests of this file."""
    folder = tmp_path_factory.mktemp("runs") / "learned"
    os.environ["FRCNN_DATASETS"] = str(datasets)
    try:
        code = main(
            [
                "train",
                "--config-file",
                str(TINY),
                "--output-dir",
                str(folder),
                "trainer.duration=600it",
                "data.train.batch_size=8",
                "hooks.log.every=50it",
                "hooks.checkpoint.every=300it",
                "hooks.evaluate.losses=true",
            ]
        )
    finally:
        del os.environ["FRCNN_DATASETS"]
    assert code == 0
    return folder


def test_a_training_learns(trained):
    metrics = json.loads((trained / "evaluation.json").read_text())
    assert metrics["val/bbox/AP50"] >= 40
    losses = [json.loads(line)["loss"] for line in (trained / "metrics.jsonl").read_text().splitlines()[:-2]]
    assert losses[-1] < losses[0] * 2 / 3


def test_the_run_folder_holds_everything(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.jsonl",
        "timing.jsonl",
        "log.txt",
        "best.pth",
        "checkpoint_00000600.pth",
        "evaluation.txt",
        "evaluation.json",
        "detections_val.json",
        "pictures",
        "imports",
    }
    assert "square" in (trained / "evaluation.txt").read_text()
    assert len(list((trained / "pictures" / "val").glob("*.png"))) >= 2


def test_validation_losses_are_logged_beside_the_metrics(trained):
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val/loss_classifier"] > 0
    assert last["val/bbox/AP"] > 0


def test_evaluating_the_checkpoint_gives_the_ap_of_the_training(trained, frcnn):
    code, out, _ = frcnn("train", "--config-file", TINY, "--eval-only", "--weights", trained / "best.pth")
    assert code == 0
    ap = json.loads((trained / "evaluation.json").read_text())["val/bbox/AP"]
    assert f"{ap:.1f}" in out


def test_a_checkpoint_runs_no_project_file_unasked(trained, start):
    words = ("--eval-only", "--weights", trained / "best.pth")
    process = start(*words)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--imports tiny_backbone.py" in output
    process = start(*words, "--imports", TINY.with_name("tiny_backbone.py"))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


def test_predicting_needs_the_checkpoint_alone(trained, frcnn, datasets, tmp_path):
    image = sorted((datasets / "tiny" / "images").glob("*"))[0]
    imports = ("--imports", TINY.with_name("tiny_backbone.py"))
    code, out, _ = frcnn("predict", "--weights", trained / "best.pth", *imports, "--output", tmp_path / "out", image)
    assert code == 0, out
    assert (tmp_path / "out").exists()
    predictor = package.load(trained / "best.pth", device="cpu", imports=[TINY.with_name("tiny_backbone.py")])
    found = predictor(str(image))
    assert set(found.class_names) <= {"circle", "square", "triangle"}


def test_starting_from_a_checkpoint_reports_what_was_loaded(trained, frcnn, tmp_path):
    words = ("trainer.duration=1it", "hooks.evaluate=null", "hooks.best=null", "hooks.pictures=null")
    code, out, _ = frcnn(
        "train", "--config-file", TINY, "--output-dir", tmp_path / "run", "--init-weights", trained / "best.pth", *words
    )
    assert code == 0
    assert "loaded" in out
    state = torch.load(tmp_path / "run" / "checkpoint_00000001.pth", weights_only=True)
    assert state["iteration"] == 1


def test_a_second_run_never_overwrites_the_first(frcnn, tmp_path):
    words = ("trainer.duration=1it", "hooks.evaluate=null", "hooks.best=null", "hooks.pictures=null")
    for _ in range(2):
        assert frcnn("train", "--config-file", TINY, "--output-dir", tmp_path / "run", *words)[0] == 0
    assert (tmp_path / "run_2" / "checkpoint_00000001.pth").exists()


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_every_precision_trains(frcnn, tmp_path, amp):
    words = (
        f"trainer.amp={amp}",
        "trainer.duration=3it",
        "hooks.best=null",
        "hooks.evaluate=null",
        "hooks.pictures=null",
    )
    code, _, err = frcnn("train", "--config-file", TINY, "--output-dir", tmp_path / "run", *words)
    assert code == 0, err
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3
    assert all(isinstance(loss, float) for loss in losses)
