"""Whole runs on a generated data set of 64-pixel images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frcnn.cli.main import main
from frcnn.data.shapes import make_shapes

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "tests" / "e2e" / "tiny.yaml"


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    make_shapes(folder / "tiny", num_train=300, num_test=24, image_size=64, seed=0)
    return folder


@pytest.fixture
def frcnn(datasets, monkeypatch, capsys):
    """Runs a verb in this process and returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("FRCNN_DATASETS", str(datasets))

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def start(datasets):
    """Starts tools/train_net.py as a process of its own."""

    def run(*words, launcher=()):
        command = [*(launcher or [sys.executable]), str(ROOT / "tools" / "train_net.py"), *map(str, words)]
        environment = {**os.environ, "FRCNN_DATASETS": str(datasets)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run
