"""The check every backbone makes of the names it is asked for."""

from __future__ import annotations

from collections.abc import Sequence


def check_out_features(chosen: Sequence[str], names: Sequence[str]) -> None:
    """Refuses an empty choice, an unknown name, and a name given twice.

    Args:
        chosen: what the user asked for.
        names: what the backbone has.

    Raises:
        ValueError: with the names to choose from.
    """
    if not chosen or not set(chosen) <= set(names) or len(set(chosen)) < len(chosen):
        raise ValueError(f"out_features must be different names out of {', '.join(names)}, got {list(chosen)}")
