from __future__ import annotations

from pathlib import Path

import pytest

from frcnn.config import ConfigError, load_tree, parse_tree
from frcnn.config.detectron2_keys import OURS
from frcnn.config.merge import merge
from frcnn.config.problems import Mark
from frcnn.config.tree import ListNode, MapNode, Node, parse
from frcnn.detectron2.defaults import DEFAULTS
from frcnn.errors import UserError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plain(node: Node | None) -> object:
    if isinstance(node, MapNode):
        return {key: plain(child) for key, child in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(child) for child in node.items]
    return None if node is None or node.is_null else node.text


def merged(base: str, child: str) -> object:
    nodes = [parse(text, Mark("x", 1))[0] for text in (base, child)]
    assert nodes[0] is not None
    assert nodes[1] is not None
    return plain(merge(nodes[0], nodes[1]))


def overridden(text: str, *overrides: str) -> object:
    tree = parse_tree(text, "x.yaml", overrides)
    assert tree.problems == []
    return plain(tree.root)


def problems(text: str, *overrides: str) -> list[str]:
    return [str(problem) for problem in parse_tree(text, "x.yaml", overrides).problems]


def test_every_node_knows_its_line():
    node, found = parse("# comment\na:\n  b: 1\n  c: [2,\n      3]\n", Mark("f.yaml", 1))
    assert found == []
    assert isinstance(node, MapNode)
    a = node.entries["a"]
    assert isinstance(a, MapNode)
    c = a.entries["c"]
    assert isinstance(c, ListNode)
    assert (str(node.key_marks["a"]), str(a.entries["b"].mark)) == ("f.yaml:2", "f.yaml:3")
    assert str(c.items[1].mark) == "f.yaml:5"


def test_what_is_not_yaml_is_one_line_with_its_place():
    for text, line, why in (
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2\n", 2, "cannot start any token"),
        ("a: 1\nb: \x07\n", 2, "special characters are not allowed"),
        ("", 1, "the file is empty"),
        ("- 1\n", 1, "a config is a mapping"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_tree(text, "bad.yaml")
        assert str(caught.value).startswith(f"bad.yaml:{line}: ")
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)


def test_keys_that_stand_twice_tags_and_endless_aliases_are_mistakes():
    assert problems("a: 1\nb: 2\na: 3\n") == ["x.yaml:3: a: the key 'a' stands here twice, first on line 1"]
    assert "tags such as !!python/name:os.system mean nothing" in problems("a: !!python/name:os.system 1\n")[0].replace(
        "tag:yaml.org,2002:", "!!"
    )
    assert "stands inside the node that it names" in problems("a: &x [*x]\n")[0]
    assert overridden("a: &x {b: 1}\nc: *x\n") == {"a": {"b": "1"}, "c": {"b": "1"}}


def test_the_child_wins_key_by_key_and_lists_are_replaced_whole():
    assert merged("{a: {x: 1, y: 2}, l: [1, 2]}", "{a: {y: 3, z: 4}, l: [5]}") == {
        "a": {"x": "1", "y": "3", "z": "4"},
        "l": ["5"],
    }


def test_a_node_that_names_another_component_starts_afresh():
    assert merged("{m: {name: A, x: 1}}", "{m: {name: B, y: 2}}") == {"m": {"name": "B", "y": "2"}}
    assert merged("{m: {name: A, x: 1}}", "{m: {name: A, y: 2}}") == {"m": {"name": "A", "x": "1", "y": "2"}}
    assert merged("{m: {name: A, x: 1}}", "{m: {y: 2}}") == {"m": {"name": "A", "x": "1", "y": "2"}}


def test_bases_are_relative_to_their_file_and_marks_name_it():
    Path("a").mkdir()
    Path("b").mkdir()
    Path("b/root.yaml").write_text("x: 1\ny: {k: 1}\n")
    Path("a/middle.yaml").write_text("_BASE_: ../b/root.yaml\n\ny: {k: 2}\n")
    Path("child.yaml").write_text("_BASE_: a/middle.yaml\nz: 3\n")
    root = load_tree("child.yaml").root
    assert plain(root) == {"x": "1", "y": {"k": "2"}, "z": "3"}
    assert [str(root.entries[key].mark) for key in "xyz"] == ["b/root.yaml:1", "a/middle.yaml:3", "child.yaml:2"]


def test_of_several_bases_each_wins_over_those_before_it():
    Path("model.yaml").write_text("a: {x: 1, y: 1}\nb: 1\n")
    Path("data.yaml").write_text("a: {y: 2, z: 2}\n")
    Path("child.yaml").write_text("_BASE_: [model.yaml, data.yaml]\na: {z: 3}\n")
    assert plain(load_tree("child.yaml").root) == {"a": {"x": "1", "y": "2", "z": "3"}, "b": "1"}
    Path("wrong.yaml").write_text("_BASE_: [model.yaml, ~]\n")
    assert [str(problem) for problem in load_tree("wrong.yaml").problems] == [
        "wrong.yaml:1: _BASE_: expected a path, relative to this file, or a list of them"
    ]


def test_a_base_that_is_missing_or_stands_on_its_child_is_named():
    Path("lost.yaml").write_text("x: 1\n_BASE_: nowhere.yaml\n")
    with pytest.raises(ConfigError, match=r"^lost.yaml:2: _BASE_: nowhere.yaml: No such file or directory$"):
        load_tree("lost.yaml")
    Path("one.yaml").write_text("_BASE_: two.yaml\n")
    Path("two.yaml").write_text("_BASE_: one.yaml\n")
    with pytest.raises(ConfigError, match=r"^two.yaml:1: .* circle: one.yaml -> two.yaml -> one.yaml$"):
        load_tree("one.yaml")
    with pytest.raises(UserError, match=r"^none.yaml: No such file or directory; expected the YAML file of a run$"):
        load_tree("none.yaml")


def test_overrides_as_key_value_as_pairs_and_into_lists():
    text = "{lr: 1, stages: [{w: 1}, {w: 1}], hooks: null}"
    assert overridden(text, "lr=2", "stages.1.w", "3", "hooks.best.metric=AP", "new=[a, {b: c}]") == {
        "lr": "2",
        "stages": [{"w": "1"}, {"w": "3"}],
        "hooks": {"best": {"metric": "AP"}},
        "new": ["a", {"b": "c"}],
    }
    assert overridden("{a: 1}", "a=x=y") == {"a": "x=y"}


def test_an_override_of_a_name_starts_its_node_afresh_whatever_the_order():
    for overrides in (("m.name=B", "m.y=2"), ("m.y=2", "m.name=B"), ("m.y=2", "m={name: B}")):
        assert overridden("{m: {name: A, x: 1}}", *overrides) == {"m": {"name": "B", "y": "2"}}


def test_overrides_that_lead_nowhere():
    assert problems("{a: [1, 2]}", "a.x=1") == [
        "command line 'a.x=1': a: 'a' is a list and takes an index (one of 0, 1), got 'x'"
    ]
    assert "single value '1' and has no 'b'" in problems("{a: 1}", "a.b=1")[0]
    assert problems("{a: 1}", "a") == ["command line 'a': expected key=value, or a key and its value"]
    assert problems("{a: 1}", "a=[1")[0].startswith("command line 'a=[1': not YAML: ")


def test_detectron2_keys_are_answered_with_ours():
    found = problems(
        "x: 1\nSOLVER:\n  STEPS: [1, 2]\n  BASE_LR: 0.1\n", "SOLVER.MAX_ITER=9", "MODEL.RPN.NMS_TRESH", "0.7"
    )
    assert sorted(found) == [
        "command line 'MODEL.RPN.NMS_TRESH 0.7': this looks like a key of detectron2, "
        "and there is none of that name here; the nearest one with a counterpart is 'MODEL.RPN.NMS_THRESH', "
        "here model.proposal_generator.nms.iou_threshold",
        "command line 'SOLVER.MAX_ITER=9': this is detectron2's name; here it is trainer.duration, such as 90000it",
        "x.yaml:3: SOLVER.STEPS: this is detectron2's name; here it is schedule.milestones, such as [60000it, 80000it]",
        "x.yaml:4: SOLVER.BASE_LR: this is detectron2's name; here it is optimizer.lr",
    ]
    assert len(OURS) >= 25


def test_a_detectron2_key_of_another_section_gets_no_hint():
    """All that we know of detectron2's keys: what has no counterpart of its own is not answered with a stranger's."""
    for key in DEFAULTS.keys() - OURS.keys():
        (answer,) = problems("x: 1\n", f"{key}=1")
        assert answer.endswith("this looks like a key of detectron2, and there is none of that name here"), answer


def test_a_detectron2_file_is_told_so_in_one_line(tmp_path):
    (tmp_path / "Base.yaml").write_text("VERSION: 2\nSOLVER: {BASE_LR: 0.02}\n")
    path = tmp_path / "theirs.yaml"
    path.write_text("_BASE_: Base.yaml\nMODEL:\n  MASK_ON: true\n  FPN: {IN_FEATURES: [res2]}\n")
    with pytest.raises(ConfigError) as caught:
        load_tree(path, ["seed=3"])
    assert str(caught.value) == (
        f"{path}:1: this is a config of detectron2; `frcnn import-config {path} --output OURS.yaml` writes ours for it"
    )
