"""`frcnn fit-anchors` on the synthetic shapes."""

import re
from itertools import pairwise

import pytest

from frcnn.cli.main import main


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    assert main(["make-shapes", "--output", str(folder / "shapes"), "--num-train", "20", "--num-test", "2"]) == 0
    return folder


def test_the_fitted_anchors_cover_the_objects_better(shapes, monkeypatch, capsys):
    monkeypatch.setenv("FRCNN_DATASETS", str(shapes))
    words = ["fit-anchors", "--config-file", "configs/quickstart.yaml"]
    bad = "model.proposal_generator.anchor_generator.sizes=[[300],[301],[302],[303],[304]]"
    capsys.readouterr()
    assert main([*words, bad]) == 0
    printed = capsys.readouterr().out
    now, fitted = (float(re.search(rf"^{name} +([0-9.]+)", printed, re.M)[1]) for name in ("now", "fitted"))
    assert now < 0.3 < 0.6 < fitted
    sizes = [float(size) for size in re.findall(r"\[([0-9.]+)\]", printed.split("sizes:")[1].split("aspect")[0])]
    assert len(sizes) == 5
    assert sizes == sorted(sizes)


def test_nearly_equal_ratios_are_not_proposed(shapes, monkeypatch, capsys):
    monkeypatch.setenv("FRCNN_DATASETS", str(shapes))
    capsys.readouterr()
    assert main(["fit-anchors", "--config-file", "configs/quickstart.yaml", "--num-ratios", "12"]) == 0
    printed = capsys.readouterr().out
    ratios = [float(ratio) for ratio in printed.split("aspect_ratios: [")[1].split("]")[0].split(",")]
    assert 1 <= len(ratios) < 12
    assert all(second / first > 1.1 for first, second in pairwise(ratios))  # rounded to two digits
    assert f"{len(ratios)} aspect ratios are proposed, not 12: of more, two would be nearer" in printed


def test_mistakes_are_one_line(capsys):
    assert main(["fit-anchors", "--config-file", "configs/quickstart.yaml", "--max-images", "0"]) == 2
    assert "--max-images and --num-ratios must be at least 1, got 0" in capsys.readouterr().err
