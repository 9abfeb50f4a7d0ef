"""Configuration: YAML with file:line, registries, signatures as schema. Imports no torch.

A YAML node is a call, and the signature is its schema. From file to objects:

    tree = load_tree("config.yaml", ["seed=1"])     nodes with file:line, bases and command line merged
    load_imports(tree)                              the files of projects register their components
    plan = read(tree, Experiment)                   calls with every option filled in, or every mistake at once
    text = dump(plan)                               the complete config
    experiment = build(plan)                        plain objects
"""

from frcnn.config.catalogue import explain_component, find_registry, list_names, list_registry, markdown
from frcnn.config.describe import describe
from frcnn.config.dump import dump, to_plain
from frcnn.config.imports import copy_imports, import_file, load_imports
from frcnn.config.merge import load_tree, parse_tree
from frcnn.config.plan import Call, DictPlan, Plan, Value, build, open_calls
from frcnn.config.problems import ConfigError, Problem, RegistrationError
from frcnn.config.registry import Factory, Registry, registries, registry_of
from frcnn.config.schema import check_components, read
from frcnn.config.tree import Tree

__all__ = [
    "Call",
    "ConfigError",
    "DictPlan",
    "Factory",
    "Plan",
    "Problem",
    "RegistrationError",
    "Registry",
    "Tree",
    "Value",
    "build",
    "check_components",
    "copy_imports",
    "describe",
    "dump",
    "explain_component",
    "find_registry",
    "import_file",
    "list_names",
    "list_registry",
    "load_imports",
    "load_tree",
    "markdown",
    "open_calls",
    "parse_tree",
    "read",
    "registries",
    "registry_of",
    "to_plain",
]
