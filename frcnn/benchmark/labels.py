"""Places for the names beside the points of a plot, so that no name lies on another or on a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER, LINE = 7.4, 13.0  # width and height in px of the text of a plot, 12 px sans-serif, with room to spare
POINT = 6.0  # half the side of the square that a point takes


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the plot, y downwards."""

    x1: float
    y1: float
    x2: float
    y2: float

    def overlaps(self, other: Box) -> bool:
        return self.x1 < other.x2 and other.x1 < self.x2 and self.y1 < other.y2 and other.y1 < self.y2

    def inside(self, other: Box) -> bool:
        return self.x1 >= other.x1 and self.y1 >= other.y1 and self.x2 <= other.x2 and self.y2 <= other.y2

    def holds(self, x: float, y: float) -> bool:
        return self.x1 < x < self.x2 and self.y1 < y < self.y2

    def nearest_to(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to another."""
        return min(max(x, self.x1), self.x2), min(max(y, self.y1), self.y2)


@dataclass(frozen=True)
class Label:
    """Where a name goes.

    Args:
        text: the name.
        box: that it fills.
        is_far: it needs a line to its point.
    """

    text: str
    box: Box
    is_far: bool


def place_labels(
    points: Sequence[tuple[float, float]], names: Sequence[str], area: Box, obstacles: Sequence[Box] = ()
) -> list[Label | None]:
    """Tries places around each point, near ones first; a name that fits nowhere is left out (hovering still tells it).

    The line from a far name to its point does not go through another point or name, which could be taken for its own.

    Args:
        points: (x, y) of each.
        names: likewise.
        area: that names must lie in.
        obstacles: what else they must not lie on.
    """
    dots = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    named: list[Box] = []
    lines: list[tuple[float, float]] = []  # places on the lines drawn so far
    placed: list[Label | None] = []
    for point, name in zip(points, names, strict=True):
        others = [
            box for box in [*dots, *named] if not box.holds(*point)
        ]  # a point that lies on another has no way past it
        label = next(
            (
                label
                for label in _places(point, name)
                if _is_free(label.box, [*obstacles, *dots, *named], area)
                and not _meet([label.box], lines)
                and not _meet(others, _line_to(label, point))
            ),
            None,
        )
        placed.append(label)
        if label is not None:
            named.append(label.box)
            lines += _line_to(label, point)
    return placed


def _line_to(label: Label, point: tuple[float, float]) -> list[tuple[float, float]]:
    """Places a pixel or two apart on the line from a far name to its point."""
    if not label.is_far:
        return []
    (x1, y1), (x2, y2) = point, label.box.nearest_to(*point)
    return [(x1 + step / 64 * (x2 - x1), y1 + step / 64 * (y2 - y1)) for step in range(65)]


def _meet(boxes: Sequence[Box], places: Sequence[tuple[float, float]]) -> bool:
    return any(box.holds(x, y) for box in boxes for x, y in places)


def _is_free(box: Box, taken: Sequence[Box], area: Box) -> bool:
    return box.inside(area) and not any(box.overlaps(other) for other in taken)


def _places(point: tuple[float, float], name: str) -> list[Label]:
    x, y = point
    width = CHARACTER * len(name)
    places = []
    for distance in (8, 11, 14, 18, 22, 27, 32, 38, 44, 51, 58, 66, 74, 83, 92, 102, 112):
        starts = [x + distance, x - distance - width, x - width / 2]  # right, left, centred
        rises = [0, -distance / 2, distance / 2, -distance, distance] if distance > 8 else [0]
        corners = [(start, y + rise) for rise in rises for start in starts[:2]]
        corners += [(starts[2], y - distance), (starts[2], y + distance)]
        places += [Label(name, Box(a, b - LINE / 2, a + width, b + LINE / 2), distance > 14) for a, b in corners]
    return places
