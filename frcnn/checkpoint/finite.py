"""Weights that are no numbers, as a training that diverged or a broken file leaves them."""

from __future__ import annotations

import torch

from frcnn.checkpoint.sources import Weights


def not_finite(weights: Weights, most: int = 3) -> list[str]:
    """A warning that names the tensors with NaN or infinite numbers; nothing where there is none.

    Args:
        weights: by our names.
        most: how many tensors are named.
    """
    names = [name for name, tensor in weights.state_dict.items() if not bool(torch.isfinite(tensor).all())]
    if not names:
        return []
    shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return [
        f"warning: {weights.source}: {len(names)} of its {len(weights.state_dict)} tensors hold NaN or infinite numbers "
        f"({shown}): the file is damaged, or its training diverged"
    ]
