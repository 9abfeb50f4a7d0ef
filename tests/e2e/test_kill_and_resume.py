"""A run that is killed again and again ends as the run that was left alone: weights and metrics, bit by bit."""

import random
import time
from pathlib import Path

import torch

TINY = Path(__file__).parent / "tiny.yaml"
LOG_EVERY = 3  # and a checkpoint every 5, so that most checkpoints hold the sums of a line that is not written yet
OPTIONS = ("trainer.duration=60it", "hooks.evaluate.every=20it", "hooks.checkpoint.keep=3", "hooks.pictures=null")
OPTIONS += (f"hooks.log.every={LOG_EVERY}it",)
EMA = ("hooks.ema.name=EMA", "hooks.ema.decay=0.9")


def iterations_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return LOG_EVERY * path.read_text().count('"lr"') if path.exists() else 0


def kill_when(process, is_time, delay=0.0):
    """Sends SIGKILL once `is_time()` says so; returns whether the process was still running."""
    while process.poll() is None:
        if is_time():
            time.sleep(delay)
            break
        time.sleep(0.0005)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def test_killed_runs_resume_bit_by_bit(start, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ("--config-file", TINY, *OPTIONS, *EMA)
    untouched = start(*words, "--output-dir", whole)
    output, _ = untouched.communicate(timeout=300)
    assert untouched.returncode == 0, output

    rng = random.Random(0)
    moments = sorted(rng.sample(range(6, 40), 5))  # leaves four saves for the kill within a save
    process = start(*words, "--output-dir", killed)
    for moment in moments:
        assert kill_when(process, lambda m=moment: iterations_logged(killed) >= m, delay=rng.uniform(0, 0.03))
        process = start("--output-dir", killed, "--resume")
    for _ in range(4):  # a save lasts some milliseconds: try until the kill fell into one
        assert kill_when(process, lambda: any(killed.glob("*.incomplete")))
        if any(killed.glob("*.incomplete")):
            break
        process = start("--output-dir", killed, "--resume")
    assert any(killed.glob("*.incomplete")), "no kill fell into a save"
    process = start("--output-dir", killed, "--resume")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resumed at iteration" in output

    last = "checkpoint_00000060.pth"
    expected, found = (torch.load(folder / last, weights_only=True) for folder in (whole, killed))
    for part in ("model", "ema"):
        assert expected[part].keys() == found[part].keys()
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), name
    assert found["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    torch.testing.assert_close(found["optimizer"]["state"], expected["optimizer"]["state"], rtol=0, atol=0)
    torch.testing.assert_close(found["hooks"], expected["hooks"], rtol=0, atol=0)
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    assert not any(killed.glob("*.incomplete"))


def test_a_finished_run_and_a_missing_one_say_different_things(frcnn, tmp_path):
    words = ("--config-file", TINY, "--output-dir", tmp_path / "run", "trainer.duration=1it")
    words += ("hooks.evaluate=null", "hooks.best=null", "hooks.pictures=null")
    code, _, err = frcnn("train", *words, "--resume")
    assert (code, "no checkpoint to resume from" in err) == (2, True), err
    assert frcnn("train", *words)[0] == 0
    code, _, err = frcnn("train", *words, "--resume")
    assert (code, "the run is finished" in err) == (2, True), err


def test_a_truncated_checkpoint_is_refused_and_the_one_before_is_offered(frcnn, tmp_path):
    folder = tmp_path / "run"
    words = ("--config-file", TINY, "--output-dir", folder, "trainer.duration=3it", "hooks.checkpoint.every=1it")
    words += ("hooks.evaluate=null", "hooks.best=null", "hooks.pictures=null", "hooks.checkpoint.keep=3")
    assert frcnn("train", *words)[0] == 0
    last = folder / "checkpoint_00000003.pth"
    last.write_bytes(last.read_bytes()[:-1000])
    code, _, err = frcnn("train", *words, "--resume")
    assert code == 2
    assert "checkpoint_00000003.pth" in err
    assert "checkpoint_00000002.pth" in err
