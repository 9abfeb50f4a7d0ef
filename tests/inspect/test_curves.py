from __future__ import annotations

import json

import pytest

from frcnn.data.images import read_image
from frcnn.errors import UserError
from frcnn.inspect.curves import _ticks, plot_metrics, read_curves


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_curves_are_read_key_by_key_and_what_is_not_finite_is_left_out(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        {"iteration": 10, "loss": 2.0, "lr": 0.1},
        {"iteration": 10, "val/bbox/AP": 30.0, "val/bbox/APs": None},
        {"iteration": 20, "loss": "nan", "lr": 0.05},
    )
    path.write_text(path.read_text() + '{"iteration": 30, "lo')
    curves = read_curves(path)
    assert curves == {"loss": [(10, 2.0)], "lr": [(10, 0.1), (20, 0.05)], "val/bbox/AP": [(10, 30.0)]}


def test_one_panel_for_what_there_is(tmp_path):
    path = write(tmp_path / "metrics.jsonl", {"iteration": 1, "loss": 2.0}, {"iteration": 2, "loss": 1.0, "lr": 0.1})
    plot_metrics(path, tmp_path / "curves.png")
    assert read_image(str(tmp_path / "curves.png")).shape == (2 * 260, 1000, 3)


def test_a_constant_and_a_single_value_can_be_drawn(tmp_path):
    path = write(tmp_path / "metrics.jsonl", {"iteration": 0, "loss": 0.0}, {"iteration": 0, "lr": -1.0})
    plot_metrics(path, tmp_path / "curves.png")


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        plot_metrics(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    with pytest.raises(UserError, match="holds no losses, AP or learning rate to draw"):
        plot_metrics(write(tmp_path / "metrics.jsonl"), tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 2.4], [0, 0.5, 1, 1.5, 2, 2.5]),
        ([0, 100], [0, 20, 40, 60, 80, 100]),
        ([0, 0], [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([-1, 1], [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_hold_all_values(values, ticks):
    got = _ticks(values)
    assert got[0] <= min(values)
    assert got[-1] >= max(values)
    assert len(got) <= 8
    if values != [0, 0]:
        assert got == ticks
