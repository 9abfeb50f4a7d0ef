"""Single words read as the type that is asked for.

PyYAML alone reads `1e-4` as text, `off` as False and `1_0` as 10; here the signature decides.
"""

from __future__ import annotations

import re
import types
from typing import Any

from frcnn.config.signature import REQUIRED
from frcnn.config.tree import Scalar

_TRUE = re.compile(r"true|yes|on", re.I)
_FALSE = re.compile(r"false|no|off", re.I)
_INT = re.compile(r"[-+]?\d[\d_]*", re.A)
_FLOAT = re.compile(r"[-+]?((\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|\.inf)", re.A | re.I)


def parse_scalar(node: Scalar, wanted: Any) -> Any:
    """The value of a word as bool, int, float, str or None; REQUIRED if it is not one. Quotes mean a string."""
    text = node.text
    if wanted is str:
        return REQUIRED if node.is_null else text
    if node.quoted:
        return REQUIRED
    if wanted in (None, types.NoneType):
        return None if node.is_null else REQUIRED
    if wanted is bool and (_TRUE.fullmatch(text) or _FALSE.fullmatch(text)):
        return _TRUE.fullmatch(text) is not None
    if wanted is int and _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if wanted is float and _FLOAT.fullmatch(text):
        return float(text.lower().replace("_", "").replace(".inf", "inf"))
    return REQUIRED
