"""Makes a project: a folder with a component of your own, a config that trains with it, a test, and a README.

The component is a matcher to begin with, whatever the name: `nearest` gives the class NearestMatcher.

frcnn new-project my_matcher
python tools/train_net.py --config-file projects/my_matcher/configs/my_matcher.yaml
pytest projects/my_matcher
"""

from __future__ import annotations

import argparse
import keyword
import os
import re
from importlib import resources
from pathlib import Path
from string import Template

from frcnn.errors import UserError

FILES = {
    "component.py.txt": "{name}.py",
    "config.yaml.txt": "configs/{name}.yaml",
    "test.py.txt": "tests/test_{name}.py",
    "README.md.txt": "README.md",
}
"""Template -> the file it becomes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn new-project`."""
    parser.add_argument("name", metavar="NAME", help="of the project, such as my_matcher: lower case and underscores")
    parser.add_argument(
        "--base",
        metavar="FILE",
        default="configs/quickstart.yaml",
        help="the config that the project's config changes (default: %(default)s)",
    )
    parser.add_argument(
        "--projects", metavar="DIR", default="projects", help="where projects stand (default: %(default)s)"
    )


def _class_name(project: str) -> str:
    """my_matcher -> MyMatcher, near -> NearMatcher; refused if there is such a matcher."""
    from frcnn.components import register_components
    from frcnn.config.registry import location
    from frcnn.modeling.roles import MATCHERS, Matcher

    name = "".join(word.capitalize() for word in project.split("_") if word)
    name = name if name.endswith("Matcher") else f"{name}Matcher"
    register_components()
    taken = Matcher if name == Matcher.__name__ else MATCHERS.components.get(name)
    if taken is not None:
        raise UserError(
            f"the matcher of '{project}' would be called {name}, as the one in {location(taken)}; choose another name"
        )
    return name


def run(args: argparse.Namespace) -> int:
    """Writes the files, and says what can be done with them."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name) or keyword.iskeyword(args.name):
        raise UserError(
            f"a project's name is also that of its Python file: lower-case letters, digits and underscores; got '{args.name}'"
        )
    base, folder = Path(args.base), Path(args.projects) / args.name
    if not base.is_file():
        raise UserError(f"{base}: there is no such config; say with --base which one the project's config is to change")
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another name")
    class_name = _class_name(args.name)
    words = {
        "name": args.name,
        "class_name": class_name,
        "folder": folder.as_posix(),
        "base": Path(os.path.relpath(base, folder / "configs")).as_posix(),
        "base_from_here": base.as_posix(),
    }
    templates = resources.files("frcnn.cli") / "templates"
    for template, target in FILES.items():
        path = folder / target.format(name=args.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            Template((templates / template).read_text(encoding="utf-8")).substitute(words), encoding="utf-8"
        )
    print(
        f"{folder}: a matcher, a config, a test, a README\n"
        f"  python tools/train_net.py --config-file {folder.as_posix()}/configs/{args.name}.yaml\n"
        f"  pytest {folder.as_posix()}"
    )
    return 0
