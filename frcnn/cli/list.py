"""Lists the components that a config can name.

frcnn list                              every registry and the names in it
frcnn list MATCHERS                     one registry, a sentence for each component
frcnn list --imports projects/topk_matcher/topk_matcher.py MATCHERS
frcnn list --markdown > docs/components.md
"""

from __future__ import annotations

import argparse

from frcnn.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn list`."""
    parser.add_argument("registry", nargs="?", metavar="REGISTRY", help="such as MATCHERS; Matcher works too")
    parser.add_argument("--markdown", action="store_true", help="the reference page of all components")
    parser.add_argument(
        "--imports", action="append", default=[], metavar="FILE", help="a project's file; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    """Prints what was asked for."""
    from frcnn.components import register_components
    from frcnn.config import find_registry, import_file, list_names, list_registry, markdown

    if args.markdown and args.registry:
        raise UserError("--markdown is the page of all registries: it takes no REGISTRY")
    register_components()
    for path in args.imports:
        import_file(path)
    if args.markdown:
        print(markdown(), end="")
    else:
        print(list_registry(find_registry(args.registry)) if args.registry else list_names())
    return 0
