from argparse import ArgumentParser
from pathlib import Path

import pytest

from frcnn.benchmark.variants import keep_config, read_variants, require_comparable, short_names
from frcnn.cli.benchmark import add_arguments, make_plan
from frcnn.errors import UserError


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def quickstart(folder, name, text):
    return write(folder, name, f"_BASE_: {Path('configs/quickstart.yaml').absolute()}\n{text}\n")


def test_names_are_short_where_that_is_enough():
    assert short_names(["a/x.yaml", "b/x.yaml", "b/y.yaml"]) == ["a_x", "b_x", "y"]
    with pytest.raises(UserError, match="named twice"):
        short_names(["a/x.yaml", "b/../a/x.yaml"])


def test_what_differs_is_told_by_its_key_with_the_options_of_a_new_part(tmp_path):
    new = quickstart(tmp_path, "new.yaml", "model: {proposal_generator: {matcher: {name: ATSSMatcher}}}\nseed: 5")
    first, second = read_variants(["configs/quickstart.yaml", new], ["optimizer.lr=0.5"], "3it")
    (change,) = second.changes_from(first)
    assert change.key == "model.proposal_generator.matcher.name"
    assert change.before.startswith("IoUMatcher (high_threshold: 0.7")
    assert change.now.startswith("ATSSMatcher (candidates_per_level: 9")


def test_a_config_with_a_mistake_does_not_stop_the_others(tmp_path):
    bad = quickstart(tmp_path, "bad.yaml", "model: {rio_heads: {}}")
    good, broken = read_variants(["configs/quickstart.yaml", bad], [], None)
    assert good.config is not None
    assert broken.config is None
    assert "bad.yaml:2: model.rio_heads" in broken.error


@pytest.mark.parametrize(
    "line",
    [
        "data: {test: {val: {dataset: {annotations: other.json}}}}",
        "data: {test: {second: {dataset: {name: CocoDataset, annotations: a, images: b}}}}",
    ],
)
def test_other_test_sets_are_refused(tmp_path, line):
    other = quickstart(tmp_path, "other.yaml", line)
    with pytest.raises(UserError, match=r"other\.yaml cannot be compared: data\.test is"):
        require_comparable(read_variants(["configs/quickstart.yaml", other], [], None))


def test_another_evaluator_is_refused_only_where_an_ap_is_measured(tmp_path):
    other = quickstart(tmp_path, "voc.yaml", "evaluator: {name: VOCEvaluator}")
    parser = ArgumentParser()
    add_arguments(parser)
    words = ["configs/quickstart.yaml", other, "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="evaluator is CocoEvaluator in the one and VOCEvaluator in the other"):
        make_plan(parser.parse_args(words))
    plan = make_plan(parser.parse_args([*words, "--speed-only"]))
    assert [variant.name for variant in plan.ready] == ["quickstart", "voc"]
    assert plan.trainings() == []


def test_another_size_of_the_test_images_is_a_variant(tmp_path):
    line = "data: {test: {val: {transforms: [{name: ResizeShortestEdge, sizes: [64], max_size: 64}]}}}"
    require_comparable(read_variants(["configs/quickstart.yaml", quickstart(tmp_path, "x.yaml", line)], [], None))


def test_results_of_another_config_are_not_mixed_in(tmp_path):
    (variant,) = read_variants(["configs/quickstart.yaml"], [], "2it")
    keep_config(variant, tmp_path / "q")
    keep_config(variant, tmp_path / "q")
    (longer,) = read_variants(["configs/quickstart.yaml"], [], "4it")
    with pytest.raises(UserError, match=r"trainer\.duration: 2it in .* 4it now"):
        keep_config(longer, tmp_path / "q")
