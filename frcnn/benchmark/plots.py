"""The pictures of a report, as SVG: AP against latency, and AP seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from frcnn.benchmark.columns import spread_text
from frcnn.benchmark.labels import CHARACTER, Box, Label, place_labels
from frcnn.benchmark.summary import Row

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 52


@dataclass(frozen=True)
class Axis:
    """A linear axis from round number to round number.

    Args:
        low: first value.
        high: last value.
        step: between two ticks.
        start: pixel of `low`.
        end: pixel of `high`.
    """

    low: float
    high: float
    step: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return [self.low + index * self.step for index in range(round((self.high - self.low) / self.step) + 1)]


def axis_for(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis with some air around the values, ticks at 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or max(abs(high) * 0.05, 0.5)
    raw = (high - low + 2 * air) / 6
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.floor((low - air) / step) * step
    if low >= 0:
        first = max(first, 0.0)
    return Axis(first, math.ceil((high + air) / step) * step, step, start, end)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (latency, AP) that no other beats in both, from fast to slow."""
    front, best = [], -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def pareto_plot(rows: Sequence[Row]) -> str:
    """AP over latency, the standard deviation as a bar; empty without two numbers for any variant."""
    shown = [row for row in rows if row.ap.mean is not None and row.latency_median is not None]
    if not shown:
        return ""
    values = [((row.latency_median or 0) * 1e3, row.ap.mean or 0) for row in shown]
    spreads = [row.ap.std or 0 for row in shown]
    x_axis = axis_for([x for x, _ in values], LEFT, WIDTH - RIGHT)
    ends = [y + sign * std for (_, y), std in zip(values, spreads, strict=True) for sign in (-1, 1)]
    y_axis = axis_for(ends, HEIGHT - BOTTOM, TOP)
    points = [(x_axis(x), y_axis(y)) for x, y in values]
    bars = [(y_axis(y - std), y_axis(y + std)) for (_, y), std in zip(values, spreads, strict=True)]
    obstacles = [Box(x - 2, high, x + 2, low) for (x, _), (low, high) in zip(points, bars, strict=True)]
    area = Box(LEFT + 4, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM - 4)
    labels = place_labels(points, [row.name for row in shown], area, obstacles)
    front = pareto_front(values)
    parts = [_grid(x_axis, y_axis, "latency, median of one image (ms)", "AP (0..100)")]
    parts.append(_line([points[index] for index in front], "front"))
    for index, (row, point) in enumerate(zip(shown, points, strict=True)):
        kind = f"point{' on-front' if index in front else ''}{' first' if row is rows[0] else ''}"
        title = f"{row.name}: AP {spread_text(row.ap)}, {values[index][0]:.1f} ms"
        parts.append(_point(point, bars[index], kind, title))
        parts.append(_label(labels[index], point))
    return _svg("AP against latency", HEIGHT, parts)


def seed_plot(rows: Sequence[Row]) -> str:
    """A line for each variant with a dot for each seed and a tick at the mean; empty if nothing was trained."""
    shown = [row for row in rows if row.ap.values]
    if not shown:
        return ""
    left = 24 + CHARACTER * max(len(row.name) for row in shown)
    height = TOP + 26 * len(shown) + BOTTOM
    x_axis = axis_for([value for row in shown for value in row.ap.values.values()], left, WIDTH - RIGHT)
    parts = [_vertical_grid(x_axis, TOP, height - BOTTOM, "AP (0..100), a dot for each seed, a bar at the mean")]
    for index, row in enumerate(shown):
        y = TOP + 26 * index + 13
        parts.append(f'<text x="{left - 12:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(row.name)}</text>')
        parts.append(_line([(left, y), (WIDTH - RIGHT, y)], "row"))
        mean = x_axis(row.ap.mean or 0)
        parts.append(_line([(mean, y - 8), (mean, y + 8)], "mean"))
        parts += [
            f'<circle class="seed" cx="{x_axis(value):.1f}" cy="{y}" r="4.5">'
            f"<title>{escape(row.name)}, seed {seed}: AP {value:.1f}</title></circle>"
            for seed, value in row.ap.values.items()
        ]
    return _svg("AP of every seed", height, parts)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(part for part in parts if part)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'


def _grid(x_axis: Axis, y_axis: Axis, x_title: str, y_title: str) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    lines = [_line([(LEFT, y_axis(tick)), (WIDTH - RIGHT, y_axis(tick))], "grid") for tick in y_axis.ticks]
    text = _tick_text(y_axis)
    lines += [
        f'<text x="{LEFT - 8}" y="{y_axis(tick) + 4:.1f}" text-anchor="end">{text(tick)}</text>'
        for tick in y_axis.ticks
    ]
    turned = f'transform="rotate(-90 16 {middle:.1f})"'
    lines.append(f'<text class="axis" x="16" y="{middle:.1f}" text-anchor="middle" {turned}>{y_title}</text>')
    return "\n".join([_vertical_grid(x_axis, TOP, HEIGHT - BOTTOM, x_title), *lines])


def _vertical_grid(axis: Axis, top: float, bottom: float, title: str) -> str:
    text = _tick_text(axis)
    lines = [_line([(axis(tick), top), (axis(tick), bottom)], "grid") for tick in axis.ticks]
    lines += [
        f'<text x="{axis(tick):.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{text(tick)}</text>'
        for tick in axis.ticks
    ]
    middle = (axis.start + axis.end) / 2
    lines.append(f'<text class="axis" x="{middle:.1f}" y="{bottom + 40:.1f}" text-anchor="middle">{title}</text>')
    return "\n".join(lines)


def _tick_text(axis: Axis) -> Callable[[float], str]:
    digits = max(0, -math.floor(math.log10(axis.step) + 1e-9))
    return lambda tick: f"{tick:,.{digits}f}"


def _point(point: tuple[float, float], bar: tuple[float, float], kind: str, title: str) -> str:
    x, y = point
    return (
        f'<g class="{kind}">{_line([(x, bar[0]), (x, bar[1])], "spread")}<circle cx="{x:.1f}" cy="{y:.1f}" r="5">'
        f"<title>{escape(title)}</title></circle></g>"
    )


def _label(label: Label | None, point: tuple[float, float]) -> str:
    if label is None:
        return ""
    box = label.box
    text = f'<text class="label" x="{box.x1:.1f}" y="{box.y2 - 2.5:.1f}">{escape(label.text)}</text>'
    if not label.is_far:
        return text
    return _line([point, box.nearest_to(*point)], "leader") + text


def _line(points: Sequence[tuple[float, float]], kind: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'
