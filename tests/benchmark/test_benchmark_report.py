"""The report: tables, page and plots of results by hand."""

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frcnn.benchmark.labels import POINT, Box, place_labels
from frcnn.benchmark.page import html_page
from frcnn.benchmark.plots import axis_for, pareto_front, pareto_plot, seed_plot
from frcnn.benchmark.report import write_report
from frcnn.benchmark.summary import without_machine
from frcnn.benchmark.text_tables import csv_report, markdown_report, terminal_report

THREE = {
    "plain": ((50.0, 51.0, 52.0), 20.0),
    "better": ((53.0, 54.1, 54.9), 25.0),
    "<odd> & co": ((50.1, 50.9, 52.0), 18.0),
}
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Strict(HTMLParser):
    """Every element that is opened is closed, in order; remembers attributes that could fetch something."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_fetches_nothing(summary_of):
    page = html_page(summary_of(THREE, problems=["seed 2: killed"]))
    parser = parsed(page)
    assert parser.addresses == []
    assert not re.search(r"https?:|@import|url\(", page)
    assert parser.tags.count("svg") == 2
    assert "&lt;odd&gt; &amp; co" in page
    assert "<odd>" not in page
    assert "seed 2: killed" in page
    assert "1 &lt; 2" in page


def test_the_plot_is_a_picture_of_its_own(summary_of, tmp_path):
    assert "ap_against_latency.svg" in write_report(summary_of(THREE), tmp_path)
    text = (tmp_path / "ap_against_latency.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}circle")) == len(THREE)
    assert "var(" not in text  # colours that every program understands
    assert "fill: #1d232b" in text


def test_the_page_of_a_speed_measurement_has_no_plot(summary_of):
    page = html_page(summary_of({"a": ((), 20.0), "b": ((), 30.0)}))
    assert "svg" not in parsed(page).tags
    assert "20.0" in page


def test_the_verdicts(summary_of):
    text = terminal_report(summary_of(THREE))
    # differences 3.0, 3.1, 2.9: mean 3, stdev 0.1, half width 4.303 * 0.1 / sqrt(3) = 0.25
    assert re.search(r"^better .* \+3\.00 ± 0\.25 +better", text, re.M)
    assert re.search(r"^<odd> & co .* within noise", text, re.M)
    assert re.search(r"^plain +51\.0 ± 1\.0 +compared with", text, re.M)


def test_one_seed_says_nothing_about_noise(summary_of):
    text = terminal_report(summary_of({"a": ((50.0,), 20.0), "b": ((60.0,), 20.0)}))
    assert "50.0 ± n/a" in text
    assert "+10.00 ± n/a" in text
    assert not re.search(r"^b .*better", text, re.M)


def test_what_failed_stands_below_the_tables(summary_of):
    summary = summary_of({"a": ((50.0, 51.0), 20.0), "b": ((), None)}, problems=["seed 0: no memory"])
    assert "b: seed 0: no memory" in terminal_report(summary)
    assert "- b: seed 0: no memory" in markdown_report(summary)


def test_the_csv_has_numbers_in_the_units_of_its_names(summary_of):
    rows = list(csv.DictReader(io.StringIO(csv_report(summary_of(THREE)))))
    assert [row["variant"] for row in rows] == list(THREE)
    assert float(rows[1]["AP"]) == pytest.approx(54.0)
    assert float(rows[1]["latency_ms"]) == pytest.approx(25.0)
    assert float(rows[1]["gflops"]) == pytest.approx(2.0)
    assert float(rows[1]["train_images_s"]) == pytest.approx(8.0)  # 4 images in 0.5 s
    assert float(rows[1]["AP_half_width_95"]) == pytest.approx(0.2484, abs=1e-3)


def test_the_front_has_what_no_other_beats_in_both():
    # (latency, AP): the second is as good as the first and slower, the last slower and worse than the third
    assert pareto_front([(10, 50), (12, 50), (20, 55), (25, 54)]) == [0, 2]


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=20))
def test_an_axis_holds_its_values(values):
    axis = axis_for(values, 0, 100)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert 2 <= len(axis.ticks) <= 12
    assert -1e-6 <= axis(min(values)) <= axis(max(values)) <= 100 + 1e-6


AREA = Box(0, 0, 800, 400)
PLACES = st.lists(st.tuples(st.floats(0, 800), st.floats(0, 400), st.text("ab", min_size=1, max_size=20)), max_size=25)


@given(PLACES)
def test_no_name_lies_on_another_or_on_a_point(places):
    points, names = [(x, y) for x, y, _ in places], [name for _, _, name in places]
    labels = [label for label in place_labels(points, names, AREA) if label is not None]
    for index, label in enumerate(labels):
        assert label.box.inside(AREA)
        assert not any(label.box.overlaps(other.box) for other in labels[:index])
        assert not any(label.box.overlaps(Box(x - POINT, y - POINT, x + POINT, y + POINT)) for x, y in points)


def test_a_single_point_gets_its_name_beside_it():
    (label,) = place_labels([(100, 100)], ["atss"], AREA)
    assert label.box.x1 == 108
    assert not label.is_far


def test_the_line_of_a_name_avoids_other_points():
    points = [(100.0, 200.0), (115.0, 200.0), (100.0, 185.0), (100.0, 215.0)]
    labels = place_labels(points, ["first of four", "b", "c", "d"], AREA)
    assert all(labels)
    for index, (label, point) in enumerate(zip(labels, points, strict=True)):
        end = label.box.nearest_to(*point)
        for step in range(33):
            place = [(1 - step / 32) * a + step / 32 * b for a, b in zip(point, end, strict=True)]
            for other, (x, y) in enumerate(points):
                if label.is_far and other != index:
                    assert not Box(x - POINT + 1, y - POINT + 1, x + POINT - 1, y + POINT - 1).holds(*place)


def test_equal_numbers_can_be_drawn(summary_of):
    rows = summary_of({"a": ((50.0, 50.0), 20.0), "b": ((50.0, 50.0), 20.0)}).rows
    assert pareto_plot(rows).count("<circle") == 2
    assert seed_plot(rows).count("<circle") == 4


def test_a_report_tells_nothing_of_where_the_machine_keeps_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRCNN_DATASETS", str(tmp_path.parent / "datasets"))
    home = tmp_path.parent / "somebody"
    monkeypatch.setenv("HOME", str(home))
    for line, expected in {
        f"{tmp_path}/out/variants/a/log.txt has it": "variants/a/log.txt has it",
        f"({tmp_path}/configs/a.yaml:3)": "(configs/a.yaml:3)",
        f"{tmp_path.parent}/datasets/coco/a.json: none": "$FRCNN_DATASETS/coco/a.json: none",
        f"{home}/a.pth and {home}_else/a.pth": f"~/a.pth and {home}_else/a.pth",
        "configs/a.yaml: nothing to shorten": "configs/a.yaml: nothing to shorten",
    }.items():
        assert without_machine(line, Path("out")) == expected
