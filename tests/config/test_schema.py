from __future__ import annotations

import pytest

from frcnn.config import ConfigError, RegistrationError, build
from frcnn.config.plan import Value
from frcnn.config.problems import Mark
from frcnn.config.schema import _Reader, default_plan
from frcnn.config.signature import Option
from frcnn.config.tree import parse

HEAD = "head: {name: ToyHead, depth: 1, loss: {name: ToyFree}}\n"


def value_of(text: str, wanted: object) -> object:
    node, _ = parse(text, Mark("x", 1))
    assert node is not None
    reader = _Reader()
    plan = reader.read(node, wanted, "k")
    return str(reader.problems[0]) if reader.problems else build(plan)


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("1e-4", float, 1e-4),
        ("1", float, 1.0),
        ("-.5", float, -0.5),
        (".inf", float, float("inf")),
        ("90_000", int, 90000),
        ("010", int, 10),
        ("off", str, "off"),
        ("1.0", str, "1.0"),
        ("'null'", str, "null"),
        ("off", bool, False),
        ("Yes", bool, True),
        ("null", str | None, None),
        ("~", int | None, None),
        ("5", str | int, 5),
        ("'5'", str | int, "5"),
        ("5.0", int | float | str, 5.0),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, x]", tuple[int, str], (1, "x")),
        ("[]", tuple[int, ...], ()),
        ("[1, 2]", tuple[float, ...] | tuple[tuple[float, ...], ...], (1.0, 2.0)),
        ("[[1], [2, 3]]", tuple[float, ...] | tuple[tuple[float, ...], ...], ((1.0,), (2.0, 3.0))),
        ("{0: cat, 2: dog}", dict[int, str], {0: "cat", 2: "dog"}),
    ],
)
def test_a_value_is_read_as_the_type_that_is_asked_for(text, wanted, value):
    read = value_of(text, wanted)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        ("512.5", int, "expected int, got '512.5'"),
        ("true", int, "expected int, got 'true'"),
        ("'512'", int, "expected int, got the string '512': leave out the quotes"),
        ("nan", float, "expected float, got 'nan'"),
        ("1", bool, "expected bool, got '1'"),
        ("null", str, "expected str, got null"),
        ("x", int | None, "expected int, got 'x'"),
        ("x", int | float, "expected int | float, got 'x'"),
        ("3", list[int], "expected list[int], got '3': write [3]"),
        ("x", list[int], "expected list[int], got 'x'"),
        ("null", list[str], "expected list[str], got null"),
        ("[16, 32]", tuple[tuple[float, ...], ...], "got a list of 2 single values: write [[16], [32]]"),
        (
            "[16, 32, 64]",
            list[list[int]],
            "expected list[list[int]], got a list of 3 single values: write [[16], [32], ...]",
        ),
        ("[16, x]", tuple[tuple[float, ...], ...], "k.0: expected tuple[float, ...], got '16': write [16]"),
        ("[1, 2, 3]", tuple[int, int], "expected 2 values (tuple[int, int]), got a list of 3"),
        ("[1, x]", tuple[float, ...] | tuple[tuple[float, ...], ...], "k.1: expected float, got 'x'"),
        ("{a: 1}", dict[int, str], "k.a: the key must be int, got 'a'"),
        ("{a: 1}", str, "expected str, got a mapping (a)"),
    ],
)
def test_a_value_of_another_type_is_a_mistake(text, wanted, message):
    assert message in str(value_of(text, wanted))


def test_every_mistake_is_reported_at_once_sorted_by_file_and_line(errors_of):
    text = """\
steps: many
head:
  name: ToyHead
  depht: 3
  width: 64
  norm: Bn
  loss: {name: ToyL3}
hooks:
  save: {name: ToySave, every: 5ep}
  last: {label: x}
rates: 3
extra_loss: ToyL1
steps: 3
"""
    assert errors_of(text, "coder.clmp=2", "coder.weights=[1, 2]") == [
        "toy.yaml:1: steps: expected int, got 'many'",
        "toy.yaml:3: head: ToyHead needs 'depth' (int): number of layers.",
        "toy.yaml:4: head.depht: ToyHead has no option 'depht'; did you mean 'depth'?",
        "toy.yaml:5: head.width: ToyHead gets 'width' from the part it stands in; leave it out",
        "toy.yaml:6: head.norm: expected one of off, BN, GN, got 'Bn'; did you mean 'BN'?",
        "toy.yaml:7: head.loss.name: no Loss is called 'ToyL3'",
        "    did you mean 'ToyL2'? choices: ToyFree, ToyL1, ToyL2; "
        "a component of a project also needs its file under 'imports:'",
        "toy.yaml:9: hooks.save.every: expected a Span, got '5ep': write it as 500it",
        "toy.yaml:10: hooks.last: a Hook needs a 'name'; choices: ToySave",
        "toy.yaml:11: rates: the config has no option 'rates'; did you mean 'rate'?",
        "toy.yaml:12: extra_loss: expected a Loss, got 'ToyL1': write {name: ToyL1}",
        "toy.yaml:13: steps: the key 'steps' stands here twice, first on line 1",
        "command line 'coder.clmp=2': 'coder' has no option 'clmp'; did you mean 'clamp'?",
        "command line 'coder.weights=[1, 2]': expected 4 values (tuple[float, float, float, float]), got a list of 2",
    ]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("ToyL2", "expected a Loss, got 'ToyL2': write {name: ToyL2}"),
        ("toyfre", "expected a Loss, got 'toyfre': write {name: ToyFree}"),
        ("something", "expected a Loss such as {name: ToyFree}, got 'something'"),
        ("[ToyL2]", "expected a Loss such as {name: ToyFree}, got a list of 1"),
    ],
)
def test_the_word_that_was_typed_is_the_one_that_is_suggested(errors_of, typed, message):
    assert errors_of(HEAD + f"extra_loss: {typed}\n") == [f"toy.yaml:2: extra_loss: {message}"]


def test_an_option_of_a_component_that_takes_none(errors_of):
    assert errors_of(HEAD + "extra_loss: {name: ToyFree, weight: 1}\n") == [
        "toy.yaml:2: extra_loss.weight: ToyFree has no option 'weight'; it takes none"
    ]


def test_null_takes_a_part_out_of_a_mapping(plan_of):
    text = HEAD + "hooks: {a: {name: ToySave}, b: {name: ToySave}}\n"
    assert list(build(plan_of(text, "hooks.a=null")).hooks) == ["b"]


def test_constructors_that_refuse_values_are_reported_together_with_their_lines(plan_of):
    plan = plan_of(HEAD + "coder: {clamp: -1}\nextra_loss:\n  name: ToyL1\n  weight: -2\n")
    with pytest.raises(ConfigError) as caught:
        build(plan)
    assert str(caught.value).splitlines() == [
        "toy.yaml:2: coder.clamp: Coder: clamp must be positive, got -1.0",
        "toy.yaml:5: extra_loss.weight: ToyL1: weight must be at least 0, got -2.0",
    ]


def test_one_field_is_built_without_the_others(plan_of, toys):
    plan = plan_of(HEAD + "coder: {clamp: -1}\nstages: [{name: ToyHead, depth: 3, loss: {name: ToyL2}}]\n")
    assert build(plan.field("head"))(8, 1).depth == 1
    assert build(plan.field("stages.0.loss")).weight == 1.0
    assert build(plan.with_value("rate", 2.0).field("rate")) == 2.0
    with pytest.raises(KeyError):
        plan.field("stages.1")


def test_a_default_must_be_of_its_type(toys):
    with pytest.raises(RegistrationError, match=r"the default of 'depth', 0\.5, is not int"):
        default_plan(toys.ToyHead, Option("depth", int, 0.5, ""))
    assert default_plan(toys.ToyHead, Option("rate", float, 1, "")) == Value(1.0)
