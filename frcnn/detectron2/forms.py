"""What form a value of detectron2 has: that of its default, as detectron2 itself asks for."""

from __future__ import annotations

from typing import Any

from frcnn.detectron2.defaults import DEFAULTS

_FIXED_LENGTH = frozenset(
    {
        "INPUT.CROP.SIZE",
        "MODEL.PIXEL_MEAN",
        "MODEL.PIXEL_STD",
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        "MODEL.RPN.BBOX_REG_WEIGHTS",
        "MODEL.RPN.IOU_THRESHOLDS",
    }
)
_MAY_BE_FLAT = ("INPUT.MIN_SIZE_TRAIN", "MODEL.ANCHOR_GENERATOR.")
"""detectron2 takes one value, or one list for all levels, where the default is a list of them."""


def wrong_form(key: str, value: Any) -> str | None:
    """What was expected at a key instead of a value of another form; None if the form is right or not known."""
    default = DEFAULTS.get(key)
    if default is None or _fits(value, default):
        return None
    if key.startswith(_MAY_BE_FLAT) and _fits(value, default[0]):
        return None
    return f"expected {_described(default)} such as {default!r}, got {value!r}"


def wrong_length(key: str, value: Any) -> str | None:
    """What is wrong with the length of a list; None if nothing is."""
    if key not in _FIXED_LENGTH or len(value) == len(DEFAULTS[key]):
        return None
    return f"expected {len(DEFAULTS[key])} values such as {DEFAULTS[key]!r}, got {value!r}"


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple) and (not default or all(_fits(item, default[0]) for item in value))
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default)) or (value is None and isinstance(default, str))


def _described(default: Any) -> str:
    if isinstance(default, tuple):
        return "a list of lists" if default and isinstance(default[0], tuple) else "a list"
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    return kinds[type(default)]
