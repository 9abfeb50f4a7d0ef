"""Whole benchmarks of the tiny config, with real processes."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frcnn.benchmark.clusters import RayScheduler, SubmititScheduler
from frcnn.benchmark.tasks import Task
from frcnn.cli.main import main
from frcnn.data.shapes import make_shapes
from frcnn.errors import UserError

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
FAST = (
    "--rounds",
    "1",
    "--repeats",
    "2",
    "--warmup",
    "0",
    "--proposals",
    "20",
    "--device",
    "cpu",
    "data.train.num_workers=0",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    make_shapes(folder / "tiny", num_train=40, num_test=8, image_size=64, seed=0)
    return {**os.environ, "FRCNN_DATASETS": str(folder)}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    variants = {
        "giou": "model: {roi_heads: {box_predictor: {box_loss: {name: GIoULoss, loss_weight: 10}}}}",
        "misspelt": "model: {backbone: {widht: 3}}",
        "no_images": "data: {train: {dataset: {images: nowhere}}}",
    }
    for name, text in variants.items():
        (folder / f"{name}.yaml").write_text(f"_BASE_: {TINY}\n{text}\n")
    files = [str(TINY), *(str(folder / f"{name}.yaml") for name in variants)]
    return [*files, "--seeds", "2", "--max-duration", "60it", "hooks.checkpoint.every=20it", *FAST]


def start(words, environment):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "benchmark.py"), *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def benchmark(words, environment, tmp_path_factory):
    """(output folder, what was printed, exit code) of a benchmark that was killed in its first training, and started again."""
    folder = tmp_path_factory.mktemp("benchmark")
    first = start([*words, "--output", folder], environment)
    deadline = time.monotonic() + 100
    while not list(folder.rglob("checkpoint_*.pth")) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.communicate()
    again = start([*words, "--output", folder], environment)
    printed, _ = again.communicate(timeout=300)
    return folder, printed, again.returncode


def test_runs_are_interleaved_and_a_failing_variant_is_one_line(benchmark):
    _, printed, code = benchmark
    trainings = re.findall(r"^\[\d/6\] (\w+), seed (\d): (.*)", printed, re.M)
    assert [(name, seed) for name, seed, _ in trainings] == [
        (name, seed) for seed in "01" for name in ("tiny", "giou", "no_images")
    ]
    assert next(outcome for name, _, outcome in trainings if name == "no_images").startswith("failed: ")
    timed = re.findall(r"^\[\d/4\] (\w+), (\w+), round 0", printed, re.M)
    assert timed == [(name, kind) for kind in ("latency", "throughput") for name in ("tiny", "giou")]
    assert "misspelt.yaml: left out:" in printed
    assert "did you mean 'width'" in printed
    assert re.search(r"^no_images: seed 0: .*nowhere", printed, re.M)
    assert "Traceback" not in printed
    assert code == 1


def test_every_file_of_the_report_is_there(benchmark):
    folder, _, _ = benchmark
    with (folder / "variants.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["tiny", "giou", "misspelt", "no_images"]
    assert float(rows["tiny"]["AP_half_width_95"]) == 0.0
    assert rows["tiny"]["image_size"] == "64x64"
    assert 0.1 < float(rows["giou"]["parameters_m"]) < 0.3
    assert float(rows["giou"]["latency_p90_ms"]) >= float(rows["giou"]["latency_ms"]) > 0
    assert float(rows["giou"]["train_images_s"]) > 0
    assert 100 < float(rows["giou"]["memory_inference_mib"]) < 4000
    assert rows["misspelt"]["AP"] == rows["misspelt"]["latency_ms"] == ""
    with (folder / "runs.csv").open() as file:
        runs = [(row["variant"], row["seed"], row["iterations"]) for row in csv.DictReader(file)]
    assert runs == [("tiny", "0", "60"), ("giou", "0", "60"), ("tiny", "1", "60"), ("giou", "1", "60")]
    assert "GIoULoss (loss_weight: 10.0" in (folder / "variants.md").read_text()
    assert (folder / "index.html").read_text().startswith("<!DOCTYPE html>")


def test_seeds_are_different_runs_of_one_config(benchmark):
    folder, _, _ = benchmark
    runs = [folder / "variants" / "tiny" / f"seed_{seed}" / "run" for seed in (0, 1)]
    assert [re.search(r"^seed: (\d)", (run / "config.yaml").read_text(), re.M)[1] for run in runs] == ["0", "1"]
    assert (runs[0] / "metrics.jsonl").read_bytes() != (runs[1] / "metrics.jsonl").read_bytes()


def test_what_has_a_result_is_not_repeated(benchmark, words, monkeypatch, environment, capsys):
    folder, _, _ = benchmark
    monkeypatch.setenv("FRCNN_DATASETS", environment["FRCNN_DATASETS"])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert len(before) == 8
    working = [word for word in words if "misspelt" not in word and "no_images" not in word]
    assert main(["benchmark", *working, "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "4 of 4 trainings are there already" in printed
    assert "4 of 4 speed measurements are there already" in printed
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")} == before


def test_another_config_in_the_same_folder_is_refused(benchmark, environment, monkeypatch, capsys):
    folder, _, _ = benchmark
    monkeypatch.setenv("FRCNN_DATASETS", environment["FRCNN_DATASETS"])
    words = ["benchmark", str(TINY), "--max-duration", "9it", "--output", str(folder), *FAST]
    assert main(words) == 2
    assert "trainer.duration: 60it" in capsys.readouterr().err


def test_a_killed_benchmark_goes_on_from_the_checkpoint(benchmark):
    seed = benchmark[0] / "variants" / "tiny" / "seed_0"
    assert "resumed at iteration" in (seed / "run" / "log.txt").read_text()
    assert [path.name for path in seed.glob("run*")] == ["run"]
    assert json.loads((seed / "result.json").read_text())["iterations"] == 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--synthetic-classes", "3"], "goes with --speed-only"),
        (["--size", "5"], "--size is HEIGHTxWIDTH"),
        (["--scheduler-option", "a=1"], "goes with --scheduler submitit or ray"),
        ([str(TINY)], "named twice"),
    ],
)
def test_options_that_make_no_sense_are_one_line(words, message, capsys):
    assert main(["benchmark", str(TINY), *words]) == 2
    assert message in capsys.readouterr().err


def test_submitit_runs_a_group_as_a_job(tmp_path):
    pytest.importorskip("submitit")
    scheduler = SubmititScheduler(tmp_path / "jobs", {"cluster": "local", "timeout_min": 2})
    task = Task("training", "x", 0, str(tmp_path / "missing.yaml"), str(tmp_path / "x"), "cpu")
    ended = []
    scheduler.run([[task]], ended.append)
    assert ended == [task]
    assert "missing.yaml" in task.error
    with pytest.raises(UserError, match="submitit says"):
        SubmititScheduler(tmp_path / "jobs", {"cluster": "local", "no_such_option": 2})


def test_ray_runs_a_group_as_a_task(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)  # a worker starts elsewhere, and finds relative paths nevertheless
    scheduler = RayScheduler({"num_cpus": 1})
    try:
        tasks = [Task("training", name, 0, "missing.yaml", name, "cpu") for name in ("x", "y")]
        ended = []
        scheduler.run([tasks, []], ended.append)
        assert ended == tasks
        assert all("missing.yaml" in task.error for task in tasks)
        with pytest.raises(UserError, match="Ray says"):
            RayScheduler({"no_such_option": 2})
    finally:
        ray.shutdown()


def test_the_time_of_a_run_is_its_own_whatever_ran_beside_it(tmp_path):
    task = Task("training", "x", 0, "x.yaml", str(tmp_path), "cpu")
    task.save()
    assert task.seconds == 0
    task.finish({"metrics": {}})
    os.utime(tmp_path / "task.json", (0, 1000))
    os.utime(tmp_path / "result.json", (0, 1042))
    assert task.seconds == 42
