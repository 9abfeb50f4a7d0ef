"""One run of a benchmark: a process of its own, a folder of its own, one result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

TASK, RESULT, ERROR, LOG = "task.json", "result.json", "error.txt", "log.txt"


Kind = Literal["training", "latency", "throughput"]


@dataclass(frozen=True)
class SpeedOptions:
    """How speed is measured.

    Args:
        size: (h, w) of the images of the latency; None takes the size of the first test image.
        warmup: passes or steps before the clock counts.
        repeats: passes or steps that are timed, in each round.
        images: different test images that the passes go through.
        proposals: that the ROI heads are given for the FLOPs.
        weights: checkpoint of the latency; None measures with random weights.
        synthetic_classes: generated images with this many classes, for configs whose data set is not here.
    """

    size: tuple[int, int] | None = None
    warmup: int = 3
    repeats: int = 20
    images: int = 8
    proposals: int = 1000
    weights: str | None = None
    synthetic_classes: int | None = None


@dataclass(frozen=True)
class Task:
    """One run.

    Args:
        kind: a training with its evaluation, the latency of inference, or the throughput of training.
        variant: its name.
        number: the seed of a training, the round of a measurement.
        config_file: the complete config.
        folder: where its log and its result go.
        device: as a person writes it.
        speed: of a measurement.
        remove_checkpoint: of a training, once its result is there.
    """

    kind: Kind
    variant: str
    number: int
    config_file: str
    folder: str
    device: str
    speed: SpeedOptions | None = None
    remove_checkpoint: bool = False

    def __str__(self) -> str:
        return f"{self.variant}, {self.what}"

    @property
    def what(self) -> str:
        """Which run of its variant it is."""
        return f"seed {self.number}" if self.kind == "training" else f"{self.kind}, round {self.number}"

    @property
    def path(self) -> Path:
        return Path(self.folder) / TASK

    def save(self) -> None:
        """Writes what the process is to do, and removes what an earlier try left to say."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        for name in (RESULT, ERROR):
            (self.path.parent / name).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Task:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["speed"] is not None:
            size = values["speed"]["size"]
            values["speed"] = SpeedOptions(**{**values["speed"], "size": tuple(size) if size else None})
        return cls(**values)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result so that a kill leaves none or a whole one."""
        unfinished = self.path.with_name(f"{RESULT}.incomplete")
        unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path.with_name(RESULT))

    def fail(self, message: str) -> None:
        self.path.with_name(ERROR).write_text(message.strip() + "\n", encoding="utf-8")

    @property
    def result(self) -> dict[str, Any] | None:
        """What the run found; None if it has not ended, or measured something else than this task asks for."""
        path = self.path.with_name(RESULT)
        if not path.exists() or not self.path.exists():
            return None
        before = Task.load(self.path)
        same = self.kind == "training" or (before.speed, before.device) == (self.speed, self.device)
        return json.loads(path.read_text(encoding="utf-8")) if same else None

    @property
    def seconds(self) -> float:
        """From the start of the run to its result, by the times of the files: right wherever and beside whatever it ran."""
        result = self.path.with_name(RESULT)
        return result.stat().st_mtime - self.path.stat().st_mtime if result.exists() else 0.0

    @property
    def error(self) -> str | None:
        """Why the run has no result, in one line."""
        path = self.path.with_name(ERROR)
        return path.read_text(encoding="utf-8").splitlines()[0] if path.exists() else None
