"""`frcnn fit-anchors` on the synthetic shapes."""

import itertools
import re
from pathlib import Path

import pytest
import yaml

from frcnn.anchor_fitting import padded_sizes
from frcnn.cli.main import main
from frcnn.experiment import read_config

SIZES = "model.proposal_generator.anchor_generator.sizes"
CONFIG = ["fit-anchors", "--config-file", "configs/quickstart.yaml"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    assert main(["make-shapes", "--output", str(folder / "shapes"), "--num-train", "20", "--num-test", "2"]) == 0
    return folder


@pytest.fixture
def fit(shapes, monkeypatch, capsys):
    monkeypatch.setenv("FRCNN_DATASETS", str(shapes))

    def run(*words):
        capsys.readouterr()
        assert main(list(words)) == 0
        return capsys.readouterr().out

    return run


def proposed(printed):
    """The YAML in what was printed."""
    return yaml.safe_load(re.search(r"^model:\n(?: .*\n)+", printed, re.M)[0])


def test_the_fitted_anchors_cover_the_objects_better_and_are_then_kept(fit):
    printed = fit(*CONFIG, f"{SIZES}=[[300],[301],[302],[303],[304]]")
    now, fitted = (float(re.search(rf"^{name} +([0-9.]+)", printed, re.M)[1]) for name in ("now", "fitted"))
    assert now < 0.3 < 0.6 < fitted
    assert "The measure is the mean of the four numbers" in printed
    options = proposed(printed)["model"]["proposal_generator"]["anchor_generator"]
    assert [len(sizes) for sizes in options["sizes"]] == [1] * 5
    assert options["sizes"] == sorted(options["sizes"])
    assert len(options["aspect_ratios"]) == 3
    ratios = f"model.proposal_generator.anchor_generator.aspect_ratios={options['aspect_ratios']}"
    again = fit(*CONFIG, f"{SIZES}={options['sizes']}", ratios)
    assert "Nothing is gained: keep your anchors." in again
    assert "model:" not in again


def test_ratios_are_never_nearly_equal(fit):
    printed = fit(*CONFIG, "--num-ratios", "6")
    ratios = proposed(printed)["model"]["proposal_generator"]["anchor_generator"]["aspect_ratios"]
    assert len(ratios) == 6
    assert all(second / first > 1.18 for first, second in itertools.pairwise(ratios))  # 1.2, rounded to three digits
    assert "RPN weights for it do not fit any more" in printed


def test_a_proposal_for_octave_anchors_can_be_pasted(fit, tmp_path):
    printed = fit("fit-anchors", "--config-file", "configs/shapes/focal_rpn.yaml")
    options = proposed(printed)["model"]["proposal_generator"]["anchor_generator"]
    assert options["name"] == "GridAnchorGenerator"
    assert [len(sizes) for sizes in options["sizes"]] == [2] * len(options["sizes"])
    path = tmp_path / "pasted.yaml"
    base = Path("configs/shapes/focal_rpn.yaml").absolute()
    path.write_text(f"_BASE_: {base}\n{yaml.safe_dump(proposed(printed))}")
    call = read_config(path).plan.field("model.proposal_generator.anchor_generator")
    assert call.target.__name__ == "GridAnchorGenerator"


def test_mistakes_are_one_line(capsys):
    assert main(["fit-anchors", "--config-file", "configs/quickstart.yaml", "--max-images", "0"]) == 2
    assert "--max-images and --num-ratios must be at least 1, got 0" in capsys.readouterr().err


def test_grids_lie_on_padded_images():
    assert padded_sizes([(612, 1000), (640, 1024)], 32) == [(640, 1024), (640, 1024)]
    assert padded_sizes([(612, 1000)], 1) == [(612, 1000)]
