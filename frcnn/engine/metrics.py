"""metrics.jsonl: one JSON object a line, deterministic, cut back on resume. Timings go to timing.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsFile:
    """Appends lines to a JSONL file.

    Everything in metrics.jsonl is a function of config, data and seed; what the clock says (images a second, waiting, memory) is
    kept in timing.jsonl, so that two runs of one config give the same file byte for byte.

    Args:
        path: the file; created at the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, iteration: int, values: Mapping[str, Any]) -> None:
        """Appends one line and hands it to the operating system at once.

        Args:
            iteration: steps done when the values were measured.
            values: what was measured; a number that is not finite is written as text, since JSON has none.
        """
        record = {"iteration": iteration, **{key: _plain(value) for key, value in values.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def cut_back(self, iteration: int) -> int:
        """Removes the lines behind an iteration, and a last line that a killed process left unfinished.

        Args:
            iteration: of the checkpoint that training goes on from.

        Returns:
            how many lines were removed.
        """
        if not self.path.exists():
            return 0
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["iteration"] <= iteration]
        if len(kept) < len(lines):
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(kept), encoding="utf-8")
            temporary.replace(self.path)
        return len(lines) - len(kept)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
