"""The course of a run as one picture: losses, learning rate and AP over iterations, drawn from metrics.jsonl."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from frcnn.data.images import opencv
from frcnn.errors import UserError
from frcnn.inspect.boxes import draw_text, text_size
from frcnn.inspect.draw import save_image

Curve = Sequence[tuple[float, float]]
"""(iteration, value) pairs."""

WIDTH, PANEL_HEIGHT = 1000, 260
LEFT, RIGHT, TOP, BOTTOM = 80, 230, 34, 28
"""Margins of a panel: numbers on the left, the legend on the right, the title above, iterations below."""

INK, GRID, PAPER = (50, 54, 60), (225, 228, 232), (255, 255, 255)
LINES = ((214, 69, 65), (31, 119, 180), (44, 140, 70), (148, 103, 189), (210, 130, 20), (20, 150, 160), (120, 120, 120))
TEXT_SCALE = 0.42

PANELS: Mapping[str, Callable[[str], bool]] = {
    "losses": lambda key: key == "loss" or key.startswith("loss_"),
    "AP": lambda key: key.endswith(("/AP", "/AP50")),
    "recall of proposals": lambda key: "box_proposals/AR@" in key,
    "learning rate": lambda key: key == "lr",
}


def plot_metrics(metrics: str | os.PathLike[str], picture: str | os.PathLike[str]) -> None:
    """Draws a run's metrics.jsonl, one panel each for losses, AP, recall and learning rate, as far as they are in it.

    Args:
        metrics: one JSON object a line, each with "iteration"; values that are not finite numbers are left out.
        picture: the file to write, .png or .jpg.

    Raises:
        UserError: there is no such file, or nothing in it to draw.
    """
    curves = read_curves(metrics)
    chosen = {title: {key: curves[key] for key in curves if belongs(key)} for title, belongs in PANELS.items()}
    iterations = [x for panel in chosen.values() for curve in panel.values() for x, _ in curve]
    if not iterations:
        raise UserError(f"{os.fspath(metrics)}: holds no losses, AP or learning rate to draw")
    x_ticks = _ticks([0, *iterations])
    save_image(picture, np.vstack([_panel(title, panel, x_ticks) for title, panel in chosen.items() if panel]))


def read_curves(metrics: str | os.PathLike[str]) -> dict[str, Curve]:
    """Key -> its finite values, in the order of the file. A last line that was cut off is passed over."""
    try:
        lines = Path(metrics).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{os.fspath(metrics)}: there is no such file; it is written while training") from error
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        for key, value in record.items():
            if isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(key, []).append((record["iteration"], value))
    return {key: curve for key, curve in curves.items() if key != "iteration"}


def _panel(title: str, curves: Mapping[str, Curve], x_ticks: Sequence[float]) -> np.ndarray:
    cv2 = opencv()
    canvas = np.full((PANEL_HEIGHT, WIDTH, 3), PAPER, dtype=np.uint8)
    y_ticks = _ticks([y for curve in curves.values() for _, y in curve] + [0.0])

    def place(x: float, y: float) -> tuple[int, int]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT)),
            round(PANEL_HEIGHT - BOTTOM - up * (PANEL_HEIGHT - TOP - BOTTOM)),
        )

    draw_text(canvas, title, (LEFT, 10), 0.5, INK)
    for y in y_ticks:
        cv2.line(canvas, place(x_ticks[0], y), place(x_ticks[-1], y), GRID, 1)
        width, height = text_size(f"{y:g}", TEXT_SCALE)
        draw_text(canvas, f"{y:g}", (LEFT - 8 - width, place(x_ticks[0], y)[1] - height // 2), TEXT_SCALE, INK)
    for x in x_ticks:
        width, _ = text_size(f"{x:g}", TEXT_SCALE)
        draw_text(canvas, f"{x:g}", (place(x, 0)[0] - width // 2, PANEL_HEIGHT - BOTTOM + 8), TEXT_SCALE, INK)
    draw_text(canvas, "iteration", (WIDTH - RIGHT + 44, PANEL_HEIGHT - BOTTOM + 8), TEXT_SCALE, INK)
    for i, (key, curve) in enumerate(curves.items()):
        color = LINES[i % len(LINES)]
        points = np.array([place(x, y) for x, y in curve], dtype=np.int32)
        cv2.polylines(canvas, [points], False, color, 2, cv2.LINE_AA)
        for point in points if len(points) <= 30 else points[-1:]:
            cv2.circle(canvas, point.tolist(), 3, color, -1, cv2.LINE_AA)
        y = TOP + 18 * i
        cv2.line(canvas, (WIDTH - RIGHT + 16, y + 5), (WIDTH - RIGHT + 34, y + 5), color, 3)
        draw_text(canvas, f"{key} {curve[-1][1]:.4g}", (WIDTH - RIGHT + 44, y), TEXT_SCALE, INK)
    return canvas


def _ticks(values: Sequence[float], most: int = 6) -> list[float]:
    """Round numbers, evenly spaced, from at or below the smallest value to at or above the largest."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if span / (factor * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
