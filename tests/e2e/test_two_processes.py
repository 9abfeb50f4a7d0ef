"""Two processes with half the batch each are one process with the whole batch."""

import json
import sys
from pathlib import Path

import pytest
import torch

TINY = Path(__file__).parent / "tiny.yaml"
OPTIONS = ("trainer.duration=8it", "hooks.evaluate.every=4it", "hooks.evaluate.losses=true", "hooks.pictures=null")
# A batch of one image has its own loss denominators and padding: then nothing depends on which images share a batch.
ONE_BY_ONE = "data.test.val.batch_size=1"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.parametrize("sampler", ["BalancedPositiveNegativeSampler", "OHEMSampler"])
def test_two_processes_give_the_losses_of_one(start, tmp_path, sampler):
    words = ("--config-file", TINY, *OPTIONS, ONE_BY_ONE, "--device", "cpu", f"model.roi_heads.sampler.name={sampler}")
    words += ("model.roi_heads.sampler.batch_size_per_image=32", "model.roi_heads.sampler.positive_fraction=0.25")
    words += ("model.proposal_generator.loss_normalizer=sampled",)
    runs = {"one": start(*words, "--output-dir", tmp_path / "one")}
    runs["two"] = start(*words, "--output-dir", tmp_path / "two", launcher=TORCHRUN)
    for process in runs.values():
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in runs
    )
    assert [set(line) for line in one] == [set(line) for line in two]
    for ours, theirs in zip(one, two, strict=True):
        for key, value in ours.items():
            if key.startswith("val/bbox"):  # weights agree to rounding, so a detection may change its rank
                assert theirs[key] == (value if value is None else pytest.approx(value, abs=0.5))
            else:
                assert theirs[key] == pytest.approx(value, rel=1e-5, abs=1e-5), (key, ours["iteration"])
    results = [json.loads((tmp_path / name / "detections_val.json").read_text()) for name in runs]
    assert {entry["image_id"] for entry in results[0]} == {entry["image_id"] for entry in results[1]}
    assert len(results[1]) == pytest.approx(len(results[0]), rel=0.02)
    weights = [torch.load(tmp_path / n / "checkpoint_00000008.pth", weights_only=True)["model"] for n in runs]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def test_a_batch_that_the_processes_cannot_share_says_so(start, tmp_path):
    process = start("--config-file", TINY, "--output-dir", tmp_path, "data.train.batch_size=3", launcher=TORCHRUN)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "3 images over all processes, which 2 processes cannot share equally" in output
