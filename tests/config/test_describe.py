from __future__ import annotations

from pathlib import Path

import pytest

from frcnn.config import describe, load_tree
from frcnn.errors import UserError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(
        "head: {name: ToyHead, loss: {name: ToyL2, weight: 2}}\nhooks: {save: {name: ToySave}}\n"
    )
    return load_tree("toy.yaml")


def test_an_option_tells_type_default_doc_and_what_the_config_says(toys, tree):
    assert describe("head.loss.weight", toys.Toy, tree) == (
        "head.loss.weight: float, default 1\n    factor of the loss, at least 0.\n    in this config: 2 (toy.yaml:1)"
    )


def test_a_role_tells_its_components_and_the_options_of_the_one_in_the_config(toys, tree):
    page = describe("head.loss", toys.Toy, tree).splitlines()
    assert page[:6] == [
        "head.loss: Loss, required",
        "    what it learns from.",
        "    Loss: Measures errors.",
        "components:",
        "    ToyFree: Costs nothing.",
        "    ToyL1: Absolute error.",
    ]
    assert page[6] == "    ToyL2: Squared error. <- in this config"
    assert page[8].startswith("ToyL2, a Loss (")
    assert page[-2:] == [
        "  powers: tuple[float, ...], default [1.0]",
        "      exponents of the terms, one after the other.",
    ]


def test_wiring_dataclasses_and_mappings_are_described(toys, tree):
    assert "  from the part it stands in: width, anchors" in describe("head", toys.Toy).splitlines()
    assert "  clamp: float, default 4.0" in describe("coder", toys.Toy).splitlines()
    assert "  every: Span, default 10it" in describe("hooks.save", toys.Toy, tree).splitlines()
    assert describe("hooks.any.every", toys.Toy).splitlines() == [
        "hooks.any.every: Span, default 10it",
        "    interval.",
    ]
    assert "  steps: int, default 100" in describe("", toys.Toy).splitlines()


def test_without_a_config_the_component_is_part_of_the_key(toys):
    assert "ask for one of head.loss.ToyFree, head.loss.ToyL1, head.loss.ToyL2" in refusal("head.loss.weight", toys.Toy)
    weight = describe("head.loss.ToyL1.weight", toys.Toy)
    assert weight.startswith("head.loss.ToyL1.weight: float, default 1\n")
    assert describe("stages.0.loss.ToyL1.weight", toys.Toy).startswith("stages.0.loss.ToyL1.weight: float")
    assert describe("ToyL1.weight", toys.Toy).startswith("ToyL1.weight: float, default 1\n")
    assert describe("ToyL1", toys.Toy).strip().startswith("ToyL1, a Loss (")


def test_a_key_that_does_not_exist_is_answered_with_the_nearest(toys, tree):
    assert refusal("head.los", toys.Toy, tree) == "ToyHead has no option 'los'; did you mean 'loss'?"
    assert refusal("haed", toys.Toy) == "a config has no option 'haed'; did you mean 'head'?"
    assert refusal("rate.x", toys.Toy) == "rate is float: nothing can be written under it"


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        describe(*arguments)
    return str(caught.value)
