from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from frcnn.config import ConfigError, Factory, RegistrationError, Registry, build, registry_of
from frcnn.config.registry import location
from frcnn.config.signature import options_of
from frcnn.errors import UserError

if TYPE_CHECKING:
    from nowhere import Shape


class Anything:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.made_with = (args, kwargs)


class Pooler(Anything):
    """A role below a base that takes anything, as nn.Module does."""


POOLERS = Registry(Pooler, wiring=("shapes",))


class Plain(Anything):
    """A role without wiring."""


PLAINS = Registry(Plain)


def refusal(registry: Registry[Any], component: type) -> str:
    with pytest.raises(RegistrationError) as caught:
        registry.register(component)
    return str(caught.value)


def test_components_are_found_by_name_and_by_role():
    @PLAINS.register
    class Nothing(Plain):
        """Has no constructor: the catch-all one above the role takes no options."""

    assert PLAINS.get("Nothing") is Nothing
    assert registry_of(Plain) is PLAINS
    assert options_of(Nothing, Plain) == {}
    with pytest.raises(UserError, match=r"no Plain is called 'nothin'\ndid you mean 'Nothing'\?"):
        PLAINS.get("nothin")


def test_wiring_must_be_the_registrys():
    class Other(Pooler):
        def __init__(self, shapes: Any, size: int) -> None: ...

    message = refusal(POOLERS, Other)
    assert re.match(
        r".*test_registry\.py:\d+: Other: left of '\*' must stand the wiring of a Pooler, \(shapes\)", message
    )
    assert "there is (shapes, size)" in message

    class Forgotten(Pooler):
        pass

    assert "there is ()" in refusal(POOLERS, Forgotten)


def test_options_must_be_written_out_annotated_and_have_defaults_that_yaml_can_write():
    class Catchall(Pooler):
        def __init__(self, shapes: Any, **options: Any) -> None: ...

    class Bare(Pooler):
        def __init__(self, shapes: Any, *, size=7) -> None: ...

    class Unwritable(Pooler):
        def __init__(self, shapes: Any, *, size: int = object()) -> None: ...  # type: ignore[assignment]

    class Named(Pooler):
        def __init__(self, shapes: Any, *, name: str) -> None: ...

    assert "hide the options" in refusal(POOLERS, Catchall)
    assert "'size' has no annotation" in refusal(POOLERS, Bare)
    assert "the default of 'size' cannot be written in YAML" in refusal(POOLERS, Unwritable)
    assert "cannot be called 'name'" in refusal(POOLERS, Named)
    assert "is not a subclass of Pooler" in refusal(POOLERS, int)


def test_a_name_belongs_to_one_file(tmp_path, toys):
    with pytest.raises(RegistrationError) as caught:
        toys.LOSSES.register(type("ToyL1", (toys.Loss,), {"__module__": __name__}))
    assert "the Loss 'ToyL1' exists already in" in str(caught.value)
    assert location(toys.ToyL1) in str(caught.value)
    assert toys.LOSSES.register(toys.ToyL1) is toys.ToyL1  # the same file again, as after a reload


def test_an_option_that_yaml_cannot_give_is_named_when_it_is_read():
    class Odd(Plain):
        def __init__(self, *, shape: complex) -> None: ...

    class Untyped(Plain):
        def __init__(self, *, shape: Shape) -> None: ...  # known to type checkers only

    class Unwired(Plain):
        def __init__(self, *, pooler: Pooler) -> None: ...

    for component, complaint in (
        (Odd, "option 'shape': YAML cannot give a complex"),
        (Untyped, "the annotation of 'shape', Shape, means nothing in its file"),
        (Unwired, "Pooler needs wiring (shapes): annotate it as Factory[Pooler]"),
    ):
        with pytest.raises(RegistrationError) as caught:
            options_of(component, Plain)
        assert complaint in str(caught.value)


def test_wiring_may_be_annotated_for_type_checkers_only():
    class Fine(Pooler):
        def __init__(self, shapes: Shape, *, inner: Factory[Pooler] | None = None) -> None: ...

    assert options_of(Fine, Pooler)["inner"].type == Factory[Pooler] | None


def test_an_inherited_constructor_keeps_its_options_and_their_docs(toys):
    options = options_of(toys.ToyL2, toys.Loss)
    assert options["weight"].doc == "factor of the loss, at least 0."
    assert options["powers"].doc == "exponents of the terms, one after the other."


def test_every_call_of_a_factory_builds_its_own_parts(plan_of):
    head = build(plan_of("head: {name: ToyHead, depth: 2, loss: {name: ToyL1}}")).head
    first, second = head(64, 3), head(64, 3)
    assert (first.width, first.anchors, first.depth, first.norm) == (64, 3, 2, "off")
    assert first.loss is not second.loss


def test_a_refusal_when_the_parent_closes_the_call_names_the_node(plan_of):
    head = build(plan_of("head:\n  name: ToyHead\n  loss: {name: ToyL1}\n  depth: 0\n")).head
    with pytest.raises(ConfigError, match=r"^toy.yaml:4: head.depth: ToyHead: depth must be at least 1, got 0$"):
        head(64, 3)
