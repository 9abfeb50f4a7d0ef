"""Explains a component: what it is, where it stands in the code, how it is written in YAML, and its options.

frcnn explain ATSSMatcher
frcnn explain Deformable                a type that options take
frcnn explain TopKMatcher --imports projects/topk_matcher/topk_matcher.py
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frcnn explain`."""
    parser.add_argument("component", metavar="NAME", help="a component, such as ATSSMatcher, or a type of options")
    parser.add_argument(
        "--imports", action="append", default=[], metavar="FILE", help="a project's file; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the page of one component or type."""
    from frcnn.components import register_components
    from frcnn.config import explain_component, import_file

    register_components()
    for path in args.imports:
        import_file(path)
    print(explain_component(args.component))
    return 0
