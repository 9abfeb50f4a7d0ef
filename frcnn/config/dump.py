"""The complete configuration as YAML: every default filled in, and read back to the same plan."""

from __future__ import annotations

import re
from typing import Any

import yaml

from frcnn.config.plan import DictPlan, ListPlan, Plan, Value
from frcnn.config.signature import is_value_class

# Words that a reader of ours or another YAML reader would take for something else than text.
_NOT_PLAIN = re.compile(r"[-+.]?[\d.][\d_.]*([eE][-+]?\d+)?|y|n|yes|no|on|off|true|false|null|~|", re.I)
_BREAK = re.compile("[\\n\\r\\x85\\u2028\\u2029]")  # in double quotes each is an escape; elsewhere YAML folds them


def dump(plan: Plan, header: str = "") -> str:
    """YAML text of a plan.

    Args:
        plan: from `read`.
        header: comment lines to put first, without `#`.
    """
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.dump(
        to_plain(plan), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True
    )


def to_plain(plan: Plan) -> Any:
    """A plan as plain Python data: dicts, lists, numbers, text, None."""
    if isinstance(plan, Value):
        return str(plan.value) if is_value_class(type(plan.value)) else plan.value
    if isinstance(plan, ListPlan):
        return [to_plain(item) for item in plan.items]
    if isinstance(plan, DictPlan):
        return {key: to_plain(entry) for key, entry in plan.entries.items()}
    options = {key: to_plain(option) for key, option in plan.options.items()}
    return {"name": plan.target.__name__, **options} if plan.named else options


class _Dumper(yaml.SafeDumper):
    """PyYAML's, without anchors for values that stand twice, and with quotes around text that looks like a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _BREAK.search(text) else "'" if _NOT_PLAIN.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
