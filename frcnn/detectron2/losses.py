"""Losses and norms of detectron2's heads."""

from __future__ import annotations

from typing import Any

from frcnn.detectron2.settings import Settings

_OVERLAP = {"giou": "GIoULoss", "diou": "DIoULoss", "ciou": "CIoULoss"}
_NORMS = ("FrozenBN", "BN", "SyncBN", "GN")


def box_loss(s: Settings, section: str) -> dict[str, Any]:
    """The box loss of `MODEL.RPN` or `MODEL.ROI_BOX_HEAD`, without its weight."""
    kind, beta = s[f"{section}.BBOX_REG_LOSS_TYPE"], s[f"{section}.SMOOTH_L1_BETA"]
    if kind in _OVERLAP:
        return {"name": _OVERLAP[kind]}
    if kind != "smooth_l1":
        s.refuse(f"{section}.BBOX_REG_LOSS_TYPE", f"only smooth_l1, {', '.join(_OVERLAP)} are translated")
    return {"name": "SmoothL1Loss", "beta": beta} if beta else {"name": "L1Loss"}


def with_loss_weight(node: dict[str, Any], weight: float) -> dict[str, Any]:
    """The loss with its weight, if that is not 1."""
    return node if weight == 1 else {**node, "loss_weight": weight}


def norm(s: Settings, key: str, *, none: bool = False) -> str | None:
    """The name of a norm layer.

    Args:
        s: the settings.
        key: of the norm.
        none: whether there may be none.
    """
    name = s[key]
    if name == "" and none:
        return None
    if name not in _NORMS:
        s.refuse(key, f"only {', '.join(_NORMS)} have a counterpart")
    return name
