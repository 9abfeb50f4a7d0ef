"""Copying weights into a model, and the table that says what became of each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from frcnn.checkpoint.load import class_dependent_names, load_weights
from frcnn.checkpoint.report import LoadReport, group_names
from frcnn.errors import UserError


class Net(nn.Module):
    """Two layers: a trunk and a class head."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, num_classes + 1)


def test_class_heads_are_found_by_building_the_model_for_one_class_more() -> None:
    assert class_dependent_names(Net, 3) == {"head.weight", "head.bias"}


def test_an_exact_fit_loads_everything() -> None:
    source, model = Net(3), Net(3)
    report = load_weights(model, source.state_dict(), source="best.pth", strict=True)
    assert report.is_exact
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )


def test_other_class_heads_are_reinitialised_and_listed() -> None:
    source, model = Net(80), Net(3)
    head = model.head.weight.clone()
    report = load_weights(
        model, source.state_dict(), source="coco.pth", strict=False, class_heads=class_dependent_names(Net, 3)
    )
    assert torch.equal(model.trunk[0].weight, source.trunk[0].weight)
    assert torch.equal(model.head.weight, head)
    table = report.table()
    assert table.startswith("7 of the model's 9 tensors loaded from coco.pth\n")
    assert "head.weight [81, 4] -> [4, 4]" in table


def test_heads_of_as_many_other_classes_are_reinitialised_though_they_would_fit() -> None:
    source, model = Net(3), Net(3)
    head = model.head.weight.clone()
    report = load_weights(
        model,
        source.state_dict(),
        source="pets.pth",
        strict=False,
        class_heads=class_dependent_names(Net, 3),
        same_classes=False,
    )
    assert torch.equal(model.trunk[0].weight, source.trunk[0].weight)
    assert torch.equal(model.head.weight, head)
    assert report.summary() == "7 of the model's 9 tensors loaded from pets.pth"
    assert "re-initialised: class heads      2  head.weight [4, 4] (other classes)" in report.table()


def test_strict_refuses_what_differs_and_leaves_the_model_alone() -> None:
    model = Net(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"weights do not fit the model of the config(.|\n)*head.weight \[81, 4\]"):
        load_weights(model, Net(80).state_dict(), source="x", strict=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("drop", ["head.bias", "trunk.0.weight"])
def test_strict_refuses_a_missing_or_unexpected_tensor(drop: str) -> None:
    state = Net(3).state_dict()
    value = state.pop(drop)
    with pytest.raises(UserError, match=rf"nothing was loaded\n(.|\n)*only in the model +1  {drop}") as missing:
        load_weights(Net(3), state, source="x", strict=True)
    assert str(missing.value).endswith("init-weights x begins with these, and the rest of the model at random")
    with pytest.raises(UserError, match=r"only in the file +1  extra") as extra:
        load_weights(Net(3), {**state, drop: value, "extra": value}, source="x", strict=True)
    assert str(extra.value).endswith("begins with these, which is all that the model has, and leaves the others out")


def test_a_trunk_of_another_width_is_refused_even_when_class_heads_may_differ() -> None:
    with pytest.raises(UserError, match=r"outside the class heads have another shape, first trunk.0.weight \[8, 2\]"):
        load_weights(Net(3), Net(3, width=8).state_dict(), source="x", strict=False, class_heads=["head.weight"])


def test_weights_of_another_model_are_refused_with_names_of_both() -> None:
    with pytest.raises(
        UserError, match=r"none of its 1 tensors belongs to the model; it has names like a.b, the model like"
    ):
        load_weights(Net(3), {"a.b": torch.zeros(1)}, source="x", strict=False)


def test_a_missing_batch_counter_is_no_mismatch() -> None:
    state = {name: value for name, value in Net(3).state_dict().items() if not name.endswith("num_batches_tracked")}
    assert load_weights(Net(3), state, source="x", strict=True).is_exact


def test_weights_take_the_models_precision() -> None:
    model = Net(3)
    load_weights(model, {k: v.double() for k, v in Net(3).state_dict().items()}, source="x", strict=True)
    assert model.head.weight.dtype == torch.float32


def test_names_are_grouped_by_the_modules_that_share_a_fate() -> None:
    everything = ["backbone.a.w", "backbone.a.b", "backbone.b.w", "head.fc.w", "head.fc.b", "head.cls.w", "scale"]
    assert group_names(everything[:3], everything) == ["backbone.* (3)"]
    assert group_names([*everything[:2], "head.cls.w", "scale"], everything) == [
        "backbone.a.* (2)",
        "head.cls.w",
        "scale",
    ]
    assert group_names([], everything) == []
    assert group_names(["w"], ["w", "w.x"]) == ["w"]


def test_the_table_of_a_wholly_foreign_model_fits_a_screen() -> None:
    mixed = [f"stage{i}.block{j}.conv{k}.weight" for i in range(4) for j in range(20) for k in range(9)]
    report = LoadReport("x", mixed[::2], [], mixed[1::2], [f"other{i}.w" for i in range(500)])
    lines = report.table().splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120
