"""A new project's own test passes, and its config trains."""

import subprocess
import sys

import pytest

from frcnn.cli.main import main

BASE = "configs/quickstart.yaml"


def in_process(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)


def test_a_new_project_trains_and_its_test_passes(tmp_path, monkeypatch, capsys):
    projects = tmp_path / "projects"
    assert main(["new-project", "near_matcher", "--projects", str(projects)]) == 0
    assert "near_matcher/configs/near_matcher.yaml" in capsys.readouterr().out
    folder = projects / "near_matcher"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "README.md",
        "configs/near_matcher.yaml",
        "near_matcher.py",
        "tests/test_near_matcher.py",
    ]
    tests = in_process("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(folder))
    assert tests.returncode == 0, tests.stdout

    shapes = tmp_path / "shapes"
    assert main(["make-shapes", "--output", str(shapes), "--num-train", "8", "--num-test", "2"]) == 0
    monkeypatch.setenv("FRCNN_DATASETS", str(tmp_path))
    trained = in_process(
        "-m", "frcnn", "train", "--config-file", str(folder / "configs" / "near_matcher.yaml"),
        "--output-dir", str(tmp_path / "run"), "trainer.duration=2it", "schedule.warmup=1it", "data.train.num_workers=0",
        "data.test.val.num_workers=0",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert "name: NearMatcher" in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Near-Matcher"], "lower-case letters, digits and underscores; got 'Near-Matcher'"),
        (["near", "--base", "no.yaml"], "no.yaml: there is no such config; say with --base"),
        (["there"], "there exists already; choose another name"),
        (["hungarian"], "the matcher of 'hungarian' would be called HungarianMatcher, as the one in frcnn/modeling/"),
        (["matcher"], "the matcher of 'matcher' would be called Matcher, as the one in frcnn/modeling/roles.py:"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, message):
    (tmp_path / "there").mkdir()
    assert main(["new-project", *words, "--projects", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
