from __future__ import annotations

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from frcnn.config import dump, parse_tree, read, to_plain
from frcnn.config.problems import Mark
from frcnn.config.tree import Tree, node_from

HEAD = {"name": "ToyHead", "depth": 1, "loss": {"name": "ToyFree"}}
floats = st.floats(allow_nan=False)
keys = st.text(min_size=1, max_size=5)
losses = st.none() | st.builds(
    lambda w, p: {"name": "ToyL1", "weight": abs(w), "powers": p}, floats, st.lists(floats, max_size=3)
)


def test_the_dump_has_every_default_and_the_text_types_of_yaml(plan_of):
    text = dump(
        plan_of("head: {name: ToyHead, depth: 1, loss: {name: ToyL1, weight: 1e-4}}"), header="first run\nAP 50"
    )
    assert text.startswith("# first run\n# AP 50\nhead:")
    plain = yaml.safe_load(text)
    assert plain["head"] == {
        "name": "ToyHead",
        "depth": 1,
        "loss": {"name": "ToyL1", "weight": 1e-4, "powers": [1.0]},
        "norm": "off",
    }
    assert plain["mode"] == "off"
    assert plain["coder"] == {"weights": [1.0, 1.0, 1.0, 1.0], "clamp": 4.0}
    assert plain["hooks"] == {}


def test_a_value_class_is_written_as_its_word(plan_of):
    plan = plan_of("head: {name: ToyHead, depth: 1, loss: {name: ToyFree}}\nhooks: {save: {name: ToySave}}")
    assert to_plain(plan.field("hooks.save")) == {"name": "ToySave", "every": "10it", "label": None}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rate": floats,
            "steps": st.integers(),
            "mode": st.text(),
            "flag": st.booleans(),
            "sizes": st.lists(floats) | st.lists(st.lists(floats), min_size=1),
            "either": st.integers() | floats | st.text() | st.sampled_from(["1e-4", "off", "1_0", "null", ".5"]),
            "names": st.dictionaries(st.integers(0, 99), st.text()),
            "extra_loss": losses,
            "hooks": st.dictionaries(keys, st.just({"name": "ToySave"}) | st.just({"name": "ToySave", "every": "3it"})),
            "coder": st.just({"clamp": 2}),
        },
    )
)
@example(root={"hooks": {"\x85": {"name": "ToySave"}}, "mode": "a\u2028\nb"})
@example(root={"hooks": {"~": {"name": "ToySave"}}})
def test_the_dump_loads_back_to_the_same_plan(toys, root):
    node = node_from({"head": HEAD, **root}, Mark("x", 1))
    plan = read(Tree(node), toys.Toy)
    text = dump(plan)
    again = read(parse_tree(text, "again.yaml"), toys.Toy)
    assert again == plan
    assert dump(again) == text
