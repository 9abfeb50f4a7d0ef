from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from frcnn.config import build, copy_imports, dump, import_file, load_imports, load_tree, read
from frcnn.config.imports import module_name, module_path
from frcnn.errors import UserError

PROJECT = """\
from frcnn.config import registries

LOSSES = next(registry for registry in registries() if registry.role.__name__ == "Loss")


@LOSSES.register
class {name}(LOSSES.role):
    '''A loss of a project.'''

    def __init__(self, *, weight: float = {weight}) -> None:
        self.weight = weight
"""
ALONE = """\
from frcnn.config import Registry


class Task:
    '''Something to do elsewhere.'''


TASKS = Registry(Task)


@TASKS.register
class Double(Task):
    def __init__(self, *, value: int) -> None:
        self.value = value

    def run(self) -> int:
        import sys

        assert "torch" not in sys.modules
        return 2 * self.value
"""


@pytest.fixture(autouse=True)
def only_toys_afterwards(toys):
    before = dict(toys.LOSSES.components)
    yield
    toys.LOSSES.components = before


def config(name: str, imports: str) -> str:
    return f"imports: [{imports}]\nhead: {{name: ToyHead, depth: 1, loss: {{name: {name}}}}}\n"


def project(path: str, name: str, weight: float = 1.0) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROJECT.format(name=name, weight=weight))
    return file


def test_a_components_file_is_named_relative_to_the_yaml(plan_of, toys, tmp_path):
    project("projects/mine/mine.py", "MineLoss", 3.0)
    Path("projects/mine/base.yaml").write_text(config("MineLoss", "mine.py"))
    plan = plan_of("_BASE_: projects/mine/base.yaml\n")
    assert build(plan.field("head.loss")).weight == 3.0
    assert f"imports: [{tmp_path}/projects/mine/mine.py]" in dump(plan)


def test_the_run_folder_keeps_a_copy_that_is_the_same_component(plan_of, toys):
    project("there/kept.py", "KeptLoss")
    plan = plan_of(config("KeptLoss", "there/kept.py"))
    run = Path("run")
    kept = copy_imports(plan, run)
    (run / "config.yaml").write_text(dump(kept))
    assert "imports: [imports/kept.py]" in dump(kept)
    again = load_tree(run / "config.yaml")
    load_imports(again)
    assert read(again, toys.Toy).field("head.loss").target is plan.field("head.loss").target
    assert copy_imports(plan, run).options == kept.options  # the copy that is there is not made again

    project("there/kept.py", "KeptLoss", 2.0)
    assert copy_imports(plan, run).options["imports"].items[0].value == "imports/kept_2.py"
    assert (
        build(plan_of(config("KeptLoss", "there/kept.py")).field("head.loss")).weight == 2.0
    )  # edited, so it ran again


def test_two_files_cannot_give_one_name(plan_of, errors_of, toys):
    project("one/same.py", "SameLoss")
    project("two/same.py", "SameLoss", 2.0)
    message = errors_of(config("SameLoss", "one/same.py, two/same.py"))
    assert message == [
        "toy.yaml:1: imports.1: two/same.py:6: the Loss 'SameLoss' exists already in one/same.py:6; "
        "give this one another name"
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no such file: lost.py; a path under 'imports:' is relative to the YAML file that says so"),
        ("x = 1\n\nx = 1 +\n", "lost.py:3: SyntaxError: invalid syntax"),
        ("def f():\n    return missing\n\nf()\n", "lost.py:2: NameError: name 'missing' is not defined"),
        ("import nowhere.at_all\n", "lost.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        (
            "from frcnn.config import Registry\nclass R: ...\n@Registry(R).register\nclass C(R):\n"
            "    def __init__(self, *, x): ...\n",
            "lost.py:3: C: option 'x' has no annotation: it says how to read the YAML value",
        ),
    ],
)
def test_a_file_that_fails_is_one_line_with_both_places(errors_of, tmp_path, source, message):
    if source is not None:
        (tmp_path / "lost.py").write_text(source)
    # The component that is missing for this reason is not reported again; the other mistake is.
    assert errors_of(config("LostLoss", "lost.py") + "steps: x\n") == [
        f"toy.yaml:1: imports.0: {message}",
        "toy.yaml:3: steps: expected int, got 'x'",
    ]


def test_a_modules_name_spells_its_path():
    for path in ("/a/b/a_b.c/mine.py", "/ü/über/2é.py", "/a b/_2f.py"):
        name = module_name(Path(path))
        assert name.rpartition(".")[2].isidentifier()
        assert module_path(name) == path


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_components_of_a_project_reach_worker_processes(tmp_path, method):
    (tmp_path / "tasks.py").write_text(ALONE)
    task = import_file(tmp_path / "tasks.py").Double(value=21)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(task.run).result(timeout=60) == 42


def test_a_directory_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        import_file(tmp_path)


def test_config_imports_no_torch():
    code = (
        "import sys, frcnn.config; sys.exit(sorted({'torch', 'numpy', 'cv2'} & sys.modules.keys()).__repr__() != '[]')"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
