"""The files of a report."""

from __future__ import annotations

from pathlib import Path

from frcnn.benchmark.page import html_page
from frcnn.benchmark.page_style import picture_file
from frcnn.benchmark.plots import pareto_plot
from frcnn.benchmark.summary import Summary
from frcnn.benchmark.text_tables import csv_report, markdown_report, runs_csv


def write_report(summary: Summary, folder: Path) -> list[str]:
    """Writes the tables and the page.

    Returns:
        the names of the files.
    """
    files = {
        "variants.csv": csv_report(summary),
        "variants.md": markdown_report(summary),
        "index.html": html_page(summary),
    }
    if summary.runs:
        files["runs.csv"] = runs_csv(summary)
    if plot := pareto_plot(summary.rows):
        files["ap_against_latency.svg"] = picture_file(plot)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return list(files)
