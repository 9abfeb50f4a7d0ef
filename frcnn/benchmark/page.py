"""The report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

from frcnn.benchmark.columns import Column, all_columns, notes
from frcnn.benchmark.page_style import SCRIPT, STYLE
from frcnn.benchmark.plots import pareto_plot, seed_plot
from frcnn.benchmark.summary import Row, Summary
from frcnn.benchmark.text_tables import problem_lines

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$intro</p>
$sections
</main>
<script>$script</script>
</body>
</html>
""")


def html_page(summary: Summary) -> str:
    """Table, plots, config differences, failures and how it was measured."""
    rows = summary.rows
    columns = all_columns(rows, accuracy=bool(summary.plan.seeds))
    sections = [
        ("Variants", _table(columns, rows)),
        ("AP against latency", _figure(pareto_plot(rows), PARETO_CAPTION)),
        ("Every seed", _figure(seed_plot(rows), "Hover over a dot for its seed and value.")),
        ("Failed, or ended early", _list(problem_lines(summary))),
        (f"What differs from {rows[0].name}", _changes(rows)),
        ("How it was measured", _list(notes(summary))),
    ]
    return PAGE.substitute(
        title="Benchmark of variants",
        style=STYLE,
        script=SCRIPT,
        intro=escape(
            f"{len(rows)} variants; {rows[0].name} is the one that the others are compared with. A difference is only "
            "called better or worse where its 95 % interval leaves 0 out. Click a column's title to sort."
        ),
        sections="\n".join(f"<section><h2>{escape(title)}</h2>\n{body}</section>" for title, body in sections if body),
    )


PARETO_CAPTION = (
    "Up and to the left is better. Filled: on the Pareto front (no variant is both faster and better); orange: the first "
    "variant; bars: ± standard deviation over seeds. Hover over a point for its numbers."
)


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    head = '<th scope="col" aria-sort="none"><button type="button">variant</button></th>' + "".join(
        f'<th scope="col" aria-sort="none" title="{escape(column.about)}"><button type="button">{escape(column.title)}'
        "</button></th>"
        for column in columns
    )
    body = "\n".join(
        f'<tr><th scope="row" data-value="{escape(row.name)}">{escape(row.name)}</th>'
        + "".join(_cell(column, row) for column in columns)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table id="variants"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _cell(column: Column, row: Row) -> str:
    value, text = column.number(row), column.text(row)
    kind = f' class="{text.replace(" ", "-")}"' if column.key == "AP_verdict" and text != "n/a" else ""
    return f'<td{kind} data-value="{"" if value is None else escape(str(value))}">{escape(text)}</td>'


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>" if picture else ""


def _changes(rows: Sequence[Row]) -> str:
    lines = [
        f"<tr>{_variant(row, index)}<td><code>{escape(c.key)}</code></td><td>{escape(c.before)}</td><td>{escape(c.now)}</td></tr>"
        for row in rows
        for index, c in enumerate(row.changes)
    ]
    if not lines:
        return ""
    titles = ("variant", "key", f"in {rows[0].name}", "in the variant")
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "\n".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _variant(row: Row, index: int) -> str:
    """Its name, once for all of its lines."""
    return "" if index else f'<th scope="rowgroup" rowspan="{len(row.changes)}">{escape(row.name)}</th>'


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""
