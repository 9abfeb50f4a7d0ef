"""`imports:` runs the files of a project, so that their components are registered.

A file becomes a submodule of this module, and its name spells its path: `frcnn.config.imports._2fhome_2fme_2fa_2epy`.
So a worker process that was started with spawn or forkserver finds the class of a pickled data set or transform by the
name alone, before any code of ours has run there, and no loader has to know of it. No other package called `projects`
can shadow it. The spelling keeps to letters, digits and `_xx`, so that the name is an identifier for every tool.
"""

from __future__ import annotations

import filecmp
import hashlib
import importlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from frcnn.config.plan import Call, ListPlan, Value
from frcnn.config.problems import Problem
from frcnn.config.registry import shown_path
from frcnn.config.tree import Tree
from frcnn.errors import UserError

__path__: list[str] = []  # makes this module a package, whose submodules are found by ProjectFinder

FOLDER = "imports"
_DIGEST = "__frcnn_digest__"


def load_imports(tree: Tree) -> None:
    """Runs the files under `imports:`; what goes wrong is kept in the tree and reported when it is read."""
    for path, node in tree.imports.items():
        try:
            import_file(node.text)
        except UserError as error:
            missing = not os.path.isfile(node.text)
            hint = "; a path under 'imports:' is relative to the YAML file that says so" if missing else ""
            tree.problems.append(Problem(node.mark, path, f"{error}{hint}"))


def import_file(path: str | os.PathLike[str]) -> ModuleType:
    """Runs a file of a project, once.

    A file with the bytes of one that has run already, such as the copy in a run folder, is that one. A file that was
    edited since runs again.

    Raises:
        UserError: the file is missing or fails; names the failing line.
    """
    real = Path(path).expanduser().resolve()
    shown = shown_path(str(real))
    if not real.is_file():
        raise UserError(f"no such file: {shown}")
    digest = hashlib.sha256(real.read_bytes()).hexdigest()
    name = module_name(real)
    for module in [m for n, m in list(sys.modules.items()) if n.startswith(f"{__name__}.")]:
        if getattr(module, _DIGEST, None) == digest:
            return module
    sys.modules.pop(name, None)
    try:
        return importlib.import_module(name)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{failing_line(error, str(real))}: {type(error).__name__}: {_first_line(error)}") from error


def copy_imports(plan: Call, folder: str | os.PathLike[str]) -> Call:
    """Copies the files under `imports` into a run folder.

    Args:
        plan: of a root with the field `imports`.
        folder: the run folder; the files go to `imports/` in it.

    Returns:
        the plan with paths relative to the folder, for the config file that is written there.
    """
    listed = plan.options["imports"]
    assert isinstance(listed, ListPlan)
    copies = []
    for item in listed.items:
        assert isinstance(item, Value)
        copies.append(Value(_copy(Path(item.value), Path(folder) / FOLDER)))
    return replace(plan, options={**plan.options, "imports": ListPlan(listed.kind, tuple(copies))})


def _copy(source: Path, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / source.name, 2
    while target.exists() and not filecmp.cmp(source, target, shallow=False):
        target, number = folder / f"{source.stem}_{number}{source.suffix}", number + 1
    if not target.exists():
        shutil.copyfile(source, target)
    return f"{FOLDER}/{target.name}"


def module_name(path: Path) -> str:
    """The module name of a project file; `module_path` is the way back."""
    spelled = "".join(chr(b) if b < 128 and chr(b).isalnum() else f"_{b:02x}" for b in os.fsencode(path))
    return f"{__name__}.{spelled}"


def module_path(name: str) -> str:
    """The path that is spelled in a module name."""
    spelled = name.removeprefix(f"{__name__}.").encode()
    return os.fsdecode(re.sub(rb"_([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), spelled))


def failing_line(error: BaseException, path: str) -> str:
    """`file:line` where a file failed: the innermost line of its own."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown_path(error.filename)}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{shown_path(path)}:{lines[-1]}" if lines else shown_path(path)


def _first_line(error: Exception) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return (message or "no message").splitlines()[0]


class ProjectLoader(Loader):
    """Runs a project file. It keeps no bytecode, so nothing is written next to a user's file or into a run folder."""

    def exec_module(self, module: ModuleType) -> None:
        assert module.__file__ is not None
        source = Path(module.__file__).read_bytes()
        exec(compile(source, module.__file__, "exec", dont_inherit=True), module.__dict__)
        setattr(module, _DIGEST, hashlib.sha256(source).hexdigest())


class ProjectFinder(MetaPathFinder):
    """Finds the modules whose names spell a path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        return spec_from_file_location(fullname, module_path(fullname), loader=ProjectLoader())


# Installed on import: a worker process that unpickles a component imports this module and nothing else of ours.
if not any(type(finder).__name__ == ProjectFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.append(ProjectFinder())
