"""The moving threshold and beta of Dynamic R-CNN in whole runs: resumed between two updates, and in two processes."""

import sys
from pathlib import Path

import pytest
import torch

DYNAMIC = Path(__file__).parent / "tiny_dynamic.yaml"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
MOVING = (
    "proposal_quality.iou_threshold",
    "proposal_quality.ious",
    "proposal_quality.errors",
    "box_predictor.box_loss.beta",
)


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def test_a_run_resumed_between_two_updates_ends_as_it_did(frcnn, tmp_path):
    run = tmp_path / "run"
    assert frcnn("train", "--config-file", DYNAMIC, "--output-dir", run)[0] == 0
    expected = weights(run / "checkpoint_00000012.pth")
    middle = weights(run / "checkpoint_00000007.pth")
    seen = "roi_heads.proposal_quality._extra_state"  # how many steps since the last update
    assert middle[seen] == expected[seen] == 2
    assert 0 < expected["roi_heads.box_predictor.box_loss.beta"] < 100
    assert expected["roi_heads.proposal_quality.iou_threshold"] > 0.06
    code, _, err = frcnn("train", "--resume-from", run / "checkpoint_00000007.pth")
    assert code == 0, err
    found = weights(run / "checkpoint_00000012.pth")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_two_processes_move_as_one(start, tmp_path):
    words = ("--config-file", DYNAMIC, "--device", "cpu")
    runs = {"one": start(*words, "--output-dir", tmp_path / "one")}
    runs["two"] = start(*words, "--output-dir", tmp_path / "two", launcher=TORCHRUN)
    for process in runs.values():
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    one, two = (weights(tmp_path / name / "checkpoint_00000012.pth") for name in runs)
    for name in MOVING:
        assert two[f"roi_heads.{name}"].tolist() == pytest.approx(one[f"roi_heads.{name}"].tolist(), rel=1e-3), name
