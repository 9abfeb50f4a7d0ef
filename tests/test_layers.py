"""Imports go down or stay inside a folder, never sideways, never up; and importing costs little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "frcnn"
FLOORS = [
    {"config", "structures", "distributed", "device", "errors", "pickles", "precision"},
    {"ops", "detectron2"},
    {"modeling", "data"},
    {"evaluation", "checkpoint", "inspect"},
    {"engine"},
    {"components"},
    {"experiment"},
    {"anchor_fitting", "assembly", "run_folder", "run_log", "visualization"},
    {"request"},
    {"convert", "import_config", "run", "deploy"},
    {"benchmark"},
    {"cli"},
]
FLOOR_OF = {place: floor for floor, places in enumerate(FLOORS) for place in places}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in FLOOR_OF)


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_places(path: Path) -> set[str]:
    """The places of frcnn that a file imports; what only a type checker reads does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "frcnn":
            parts = node.module.split(".")[1:]
            names |= {parts[0]} if parts else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("frcnn.")}
    return names & set(FLOOR_OF)


def test_every_part_of_the_package_has_a_floor():
    places = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert places - {"__init__", "__main__"} == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    here = place_of(path)
    wrong = {place for place in imported_places(path) if place != here and FLOOR_OF[place] >= FLOOR_OF[here]}
    if FLOOR_OF[here] == 0:
        wrong -= FLOORS[0]  # the ground floor's single files may use each other
    assert not wrong, f"{path.relative_to(ROOT)} is on floor {FLOOR_OF[here]} and imports {', '.join(sorted(wrong))}"


def in_a_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("module", ["frcnn", "frcnn.config", "frcnn.cli.main", "frcnn.cli.train", "frcnn.cli.predict"])
def test_importing_brings_no_torch(module):
    assert in_a_fresh_process(f"import sys, {module}; print('torch' in sys.modules)") == "False"


def test_import_frcnn_takes_milliseconds():
    code = "import time; t = time.process_time(); import frcnn; print(time.process_time() - t)"
    assert min(float(in_a_fresh_process(code)) for _ in range(3)) < 0.05


def test_help_answers_without_torch():
    code = (
        "import sys; from frcnn.cli.main import main; code = main(['train', '--help']); "
        "print(code, 'torch' in sys.modules)"
    )
    assert in_a_fresh_process(code).endswith("0 False")
