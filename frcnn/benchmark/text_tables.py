"""The report as text: for the terminal, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from frcnn.benchmark.columns import Column, accuracy_columns, all_columns, cost_columns, notes
from frcnn.benchmark.summary import Row, Summary


def terminal_report(summary: Summary) -> str:
    """Two aligned tables, accuracy and cost, then what failed and how it was measured."""
    blocks = [_aligned(columns, summary.rows) for columns in _tables(summary)]
    blocks += ["\n".join(lines) for lines in (problem_lines(summary), notes(summary)) if lines]
    return "\n\n".join(blocks)


def markdown_report(summary: Summary) -> str:
    """The same for a page of documentation, with the config differences."""
    blocks = [_markdown(columns, summary.rows) for columns in _tables(summary)]
    for title, lines in (
        ("Failed, or ended early", problem_lines(summary)),
        (f"Config differences to {summary.rows[0].name}", change_lines(summary)),
        ("How it was measured", notes(summary)),
    ):
        if lines:
            blocks.append(f"### {title}\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(blocks) + "\n"


def csv_report(summary: Summary) -> str:
    """A row a variant, in the units of the tables, which the names end with, then standard deviations and intervals."""
    columns = all_columns(summary.rows, accuracy=bool(summary.plan.seeds))
    records = []
    for row in summary.rows:
        record: dict[str, Any] = {"variant": row.name} | {column.key: column.number(row) for column in columns}
        for name, spread in row.metrics.items():
            if spread.values:
                record |= {f"{name}_std": spread.std, f"{name}_seeds": len(spread.values)}
        record |= {
            "AP_half_width_95": row.differences["bbox/AP"].half_width,
            "latency_rounds_ms": " ".join(f"{seconds * 1e3:.2f}" for seconds in row.latency_rounds),
            "trainable": row.facts.get("trainable"),
            "activations": row.facts.get("activations"),
            "problems": "; ".join(row.problems),
        }
        records.append(record)
    return _csv(records)


def runs_csv(summary: Summary) -> str:
    """A row a training: every metric of every test set."""
    return _csv(
        [
            {
                **{key: run[key] for key in ("variant", "seed", "iterations", "train_seconds", "peak_memory")},
                **run["metrics"],
            }
            for run in summary.runs
        ]
    )


def problem_lines(summary: Summary) -> list[str]:
    """What failed or ended early, a line each."""
    return [f"{row.name}: {line}" for row in summary.rows for line in (*row.problems, *row.remarks)]


def change_lines(summary: Summary) -> list[str]:
    """The keys by which each variant differs from the first."""
    return [
        f"{row.name}: " + "; ".join(f"`{change.key}`: {change.before} → {change.now}" for change in row.changes)
        for row in summary.rows
        if row.changes
    ]


def _tables(summary: Summary) -> list[list[Column]]:
    return [*([accuracy_columns(summary.rows)] if summary.plan.seeds else []), cost_columns()]


def _cells(columns: Sequence[Column], rows: Sequence[Row]) -> list[list[str]]:
    return [["variant", *(column.title for column in columns)]] + [
        [row.name, *(column.text(row) for column in columns)] for row in rows
    ]


def _aligned(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    cells = _cells(columns, rows)
    widths = [max(len(line[index]) for line in cells) for index in range(len(cells[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    header, *body = [
        ["`" + line[0] + "`" if index else line[0], *line[1:]] for index, line in enumerate(_cells(columns, rows))
    ]
    rule = ["---", *["---:"] * len(columns)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (header, rule, *body)
    )


def _csv(records: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
