"""From a checkpoint alone to detections: `frcnn.load` and the predict command, with the quickstart's model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import frcnn
from frcnn.assembly import build_model
from frcnn.checkpoint.save import save_checkpoint
from frcnn.cli.main import main
from frcnn.errors import UserError
from frcnn.experiment import read_config

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
CATEGORIES = [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}, {"id": 5, "name": "triangle"}]
PROJECT = '''
"""A project's matcher; running this file leaves a mark."""
from pathlib import Path

from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.roles import MATCHERS

Path(__file__).with_name("was_run").touch()


@MATCHERS.register
class {name}(IoUMatcher):
    """IoUMatcher under another name.

    Args:
        high_threshold: positive from here on.
        low_threshold: negative below.
    """

    def __init__(self, *, high_threshold: float = 0.5, low_threshold: float = 0.5) -> None:
        super().__init__(high_threshold=high_threshold, low_threshold=low_threshold, allow_low_quality_matches=False)
'''


def write_checkpoint(path: Path, overrides: tuple[str, ...] = (), config: Path = QUICKSTART, **changes: Any) -> None:
    """What a run leaves, untrained, with scores of 1/4 for all."""
    every_score = () if config.stem == "rpn" else ("model.roi_heads.postprocess.score_thresh=0.0",)
    config = read_config(config, (*every_score, *overrides))
    model = build_model(config.build(), CATEGORIES, torch.device("cpu"))
    state = {"config": config.text, "categories": CATEGORIES, "iteration": 1, "model": model.state_dict()}
    save_checkpoint(path, {**state, **changes})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.pth"
    write_checkpoint(path)
    return path


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)


def test_a_checkpoint_alone_predicts(
    checkpoint: Path, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing is found by a relative path
    before = torch.get_rng_state()
    predictor = frcnn.load(checkpoint, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    found = predictor(image)
    assert len(found) > 0
    assert set(found.class_names) <= {"circle", "square", "triangle"}
    assert {result["category_id"] for result in found.to_coco()} <= {1, 2, 5}
    assert (found.boxes[:, 2] <= 128).all()
    np.testing.assert_array_equal(predictor(image).boxes, found.boxes)


def test_proposals_have_no_class_but_object(
    image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "rpn.pth", config=QUICKSTART.parent / "shapes" / "rpn.yaml")
    found = frcnn.load(tmp_path / "rpn.pth", device="cpu")(image)
    assert set(found.class_names) == {"object"}
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    words = [
        "predict",
        "--weights",
        str(tmp_path / "rpn.pth"),
        str(tmp_path / "a.jpg"),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--device", "cpu", "--score-thresh", "0.0"]) == 0
    assert re.search(r"a\.jpg: \d+ object\n", capsys.readouterr().out)
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert document["categories"] == [{"id": 1, "name": "object"}]


def test_averaged_weights_are_used_where_the_run_kept_them(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    averaged = {name: torch.zeros_like(value) for name, value in content["model"].items()}
    save_checkpoint(tmp_path / "c.pth", {**content, "ema": averaged})
    detector = frcnn.load(tmp_path / "c.pth", device="cpu").detector
    assert all((value == 0).all() for value in detector.state_dict().values())


def test_weights_that_do_not_fit_the_config_are_refused_with_the_table(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    save_checkpoint(tmp_path / "c.pth", {**content, "categories": CATEGORIES[:2]})
    with pytest.raises(
        UserError, match=r"do not fit the model of the config(.|\n)*cls_score.weight \[4, \d+\] -> \[3, \d+\]"
    ):
        frcnn.load(tmp_path / "c.pth", device="cpu")


@pytest.mark.parametrize("key", ["config", "categories"])
def test_a_checkpoint_that_lacks_something_is_refused(checkpoint: Path, tmp_path: Path, key: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content[key]
    save_checkpoint(tmp_path / "c.pth", content)
    with pytest.raises(UserError, match=f"carries no {key}"):
        frcnn.load(tmp_path / "c.pth")


def test_a_projects_file_is_run_only_when_asked_for(tmp_path: Path, image: np.ndarray) -> None:
    for name in ("Mine", "Yours"):  # Yours is never registered before it is loaded
        (tmp_path / f"{name.lower()}.py").write_text(PROJECT.format(name=f"Matcher{name}"))
    (tmp_path / "c.yaml").write_text(
        f"_BASE_: {QUICKSTART}\nimports: [mine.py]\nmodel: {{roi_heads: {{matcher: {{name: MatcherMine}}}}}}\n"
    )
    write_checkpoint(tmp_path / "mine.pth", config=tmp_path / "c.yaml")
    content = torch.load(tmp_path / "mine.pth", weights_only=True)
    content["config"] = content["config"].replace("MatcherMine", "MatcherYours").replace("mine.py", "yours.py")
    save_checkpoint(tmp_path / "yours.pth", content)
    (tmp_path / "was_run").unlink()
    with pytest.raises(UserError, match=r"no Matcher is called 'MatcherYours'") as caught:
        frcnn.load(tmp_path / "yours.pth", device="cpu")
    assert "--imports yours.py" in str(caught.value)
    assert not (tmp_path / "was_run").exists()
    predictor = frcnn.load(tmp_path / "yours.pth", device="cpu", imports=[tmp_path / "yours.py"])
    assert (tmp_path / "was_run").exists()
    assert type(predictor.detector.roi_heads.matcher).__name__ == "MatcherYours"


def test_the_predict_command(
    checkpoint: Path, image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.jpg"), image)
    words = ["predict", "--weights", str(checkpoint), str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    words += ["--device", "cpu", "--score-thresh", "0.05"]
    assert main(words) == 0
    loaded, first, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"(\d+) of the model's \1 tensors loaded from {checkpoint}", loaded)
    assert first.startswith("a.jpg: ")
    assert last.startswith("1 images in ")
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(document["annotations"]) > 0
    assert (tmp_path / "out" / "a.jpg").exists()
    (tmp_path / "images" / "b.jpg").write_bytes(b"no image")
    assert main(words) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("not read: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.jpg"], "absent.jpg: there is no such image file or folder"),
        ([".", "--score-thresh", "50"], "--score-thresh must be in [0, 1], got 50"),
        (["a.png"], "absent.pth: there is no such file"),
        (["a.png", "--device", "gpu"], "device must be auto, cpu, cuda, cuda:N or mps, got 'gpu'"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", np.zeros((4, 4, 3), np.uint8))
    assert main(["predict", "--weights", "absent.pth", *words]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
