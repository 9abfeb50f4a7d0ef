"""How the page of a report looks, in light and dark, and the script that sorts its table."""

from __future__ import annotations

import re

LIGHT = {
    "surface": "#ffffff",
    "ink": "#1d232b",
    "muted": "#59636f",
    "line": "#d5dae0",
    "grid": "#e8ebee",
    "accent": "#1f5fbf",
    "first": "#b35900",
    "good": "#0d6b32",
    "bad": "#a8201a",
}
DARK = {
    "surface": "#15191e",
    "ink": "#e6e9ed",
    "muted": "#a3adb8",
    "line": "#3a424c",
    "grid": "#272d34",
    "accent": "#7fb2ff",
    "first": "#ffab5c",
    "good": "#6fd392",
    "bad": "#ff928a",
}


def _definitions(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


PLOT_STYLE = """
svg text { font: 12px system-ui, sans-serif; fill: var(--muted); }
svg text.label { fill: var(--ink); paint-order: stroke; stroke: var(--surface); stroke-width: 3px; }
svg text.axis { font-size: 13px; fill: var(--ink); }
svg polyline { fill: none; stroke: var(--grid); } svg .front { stroke: var(--accent); stroke-dasharray: 4 4; }
svg .leader { stroke: var(--muted); stroke-width: .7; } svg .spread { stroke: var(--muted); }
svg .mean { stroke: var(--ink); stroke-width: 2; } svg .row { stroke: var(--line); }
svg .point circle { fill: var(--surface); stroke: var(--accent); stroke-width: 2; }
svg .on-front circle { fill: var(--accent); } svg .first circle { stroke: var(--first); }
svg .first.on-front circle { fill: var(--first); }
svg .seed { fill: var(--accent); fill-opacity: .75; stroke: var(--surface); }
"""

STYLE = f"""
:root {{ color-scheme: light dark; {_definitions(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_definitions(DARK)} }} }}
body {{ margin: 0; background: var(--surface); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }}
main {{ max-width: 1500px; margin: 0 auto; padding: 24px; }}
h1 {{ font-size: 26px; margin: 0 0 8px; }} h2 {{ font-size: 19px; margin: 32px 0 10px; }}
h3 {{ font-size: 15px; margin: 18px 0 6px; }}
p, li {{ max-width: 90ch; }} li {{ margin: 4px 0; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }}
th, td {{ padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: bottom; }}
#variants td {{ text-align: right; white-space: nowrap; }} #variants thead th {{ text-align: right; }}
#variants thead th:first-child {{ text-align: left; }}
#variants tbody th {{ position: sticky; left: 0; background: var(--surface); font-weight: 600; white-space: nowrap; }}
#variants button {{ all: unset; cursor: pointer; font-weight: 600; color: var(--muted); }}
#variants button:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
#variants [aria-sort=ascending] button::after {{ content: " \\2191"; }}
#variants [aria-sort=descending] button::after {{ content: " \\2193"; }}
td.better {{ color: var(--good); }} td.worse {{ color: var(--bad); }} td.within-noise {{ color: var(--muted); }}
code {{ font: 13px ui-monospace, monospace; }}
figure {{ margin: 0; }} figcaption {{ color: var(--muted); font-size: 14px; max-width: 90ch; }}
svg {{ display: block; width: 100%; max-width: 1000px; height: auto; }}
{PLOT_STYLE}"""

SCRIPT = """
document.querySelectorAll('#variants thead th').forEach((head, column) => {
  head.querySelector('button').addEventListener('click', () => {
    const descending = head.getAttribute('aria-sort') === 'ascending';
    head.parentNode.querySelectorAll('th').forEach(other => other.setAttribute('aria-sort', 'none'));
    head.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
    const body = document.querySelector('#variants tbody');
    const value = row => row.cells[column].dataset.value;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === '' || y === '') return (x === '') - (y === '');  // what is not known comes last either way
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return descending ? -order : order;
    };
    [...body.rows].sort(compare).forEach(row => body.append(row));
  });
});
"""


def picture_file(plot: str) -> str:
    """A plot of the page as a file of its own, in light colours, for a README.

    Programs that draw SVG do not all know CSS variables, so that the colours are written out.

    Args:
        plot: an svg element without the name space that a file needs.
    """
    style = re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], PLOT_STYLE)
    inside = f'<style>{style}</style><rect width="100%" height="100%" fill="{LIGHT["surface"]}"/>'
    return re.sub(
        r"<svg([^>]*)>", lambda found: f'<svg xmlns="http://www.w3.org/2000/svg"{found[1]}>{inside}', plot, count=1
    )
