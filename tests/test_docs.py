"""What the documents point to is there: links, files of commands, and what their Python imports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("projects/*/README.md")])
CONFIGS = sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("projects/*/configs/*.yaml")])
FILE = r"(?:configs|projects|tests|tools|benchmarks)/[\w./-]+\.(?:yaml|py)\b"
# The reader's own files in examples, and detectron2's.
EXAMPLES = r"configs/(mine|my|a|b|c|Base-RCNN-FPN)\.yaml|.*/(mine|my_matcher|COCO-\w+)/.*"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_files_are_there(page: Path) -> None:
    text = page.read_text()
    links = [
        link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|#", link)
    ]
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [
        file for file in re.findall(FILE, text) if not re.fullmatch(EXAMPLES, file) and not _is_there(page, file)
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_examples_import_is_there(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec("\n".join(line for line in block.splitlines() if re.match(r"(from|import) ", line)), {})


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_commands_of_headers_name_files_that_are_there(config: Path) -> None:
    header = "\n".join(line for line in config.read_text().splitlines() if line.startswith("#"))
    assert [file for file in re.findall(FILE, header) if not (ROOT / file).exists()] == []
    own = re.findall(r"--config-file (\S+\.yaml)", header)
    assert "_base_" in name(config) or name(config) in own


def _is_there(page: Path, file: str) -> bool:
    return (ROOT / file).exists() or (page.parent / file).exists()
