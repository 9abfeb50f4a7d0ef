"""Optimizers: parameter groups by what a parameter is and where it stands, and the learning rate's scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from frcnn.engine.roles import OPTIMIZERS, Optimizer

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    norm_weight_decay: float | None,
    bias_weight_decay: float | None,
    lr_multipliers: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Trainable parameters, grouped by learning rate and weight decay, in the model's order.

    Args:
        model: whose parameters.
        lr: the base learning rate.
        weight_decay: for weights.
        norm_weight_decay: for norm layers; None is as for weights.
        bias_weight_decay: for biases; None is as for weights.
        lr_multipliers: name prefix -> factor on lr; the longest prefix that fits counts.

    Returns:
        groups with params, names, lr, initial_lr, weight_decay.

    Raises:
        ValueError: a rate below 0, or a prefix that fits no parameter.
    """
    _require_at_least(0, lr=lr, weight_decay=weight_decay)
    _require_at_least(0, norm_weight_decay=norm_weight_decay, bias_weight_decay=bias_weight_decay)
    norm_names = {name for name, module in model.named_modules() if isinstance(module, NORM_LAYERS)}
    unused = dict(lr_multipliers)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        prefixes = [p for p in lr_multipliers if name == p or name.startswith(p + ".")]
        for prefix in prefixes:
            unused.pop(prefix, None)
        if not parameter.requires_grad:
            continue
        factor = lr_multipliers[max(prefixes, key=len)] if prefixes else 1.0
        parent, _, kind = name.rpartition(".")
        decay = weight_decay
        if parent in norm_names:
            decay = weight_decay if norm_weight_decay is None else norm_weight_decay
        elif kind == "bias":
            decay = weight_decay if bias_weight_decay is None else bias_weight_decay
        rate = lr * factor
        group = groups.setdefault(
            (rate, decay), {"params": [], "names": [], "lr": rate, "initial_lr": rate, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if unused:
        raise ValueError(f"lr_multipliers: no parameter's name starts with {', '.join(map(repr, unused))}")
    if not groups:
        raise ValueError("the model has no trainable parameter: everything is frozen")
    return list(groups.values())


def _require_at_least(minimum: float, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value:g}")


@OPTIMIZERS.register
class SGD(torch.optim.SGD, Optimizer):
    """Stochastic gradient descent with momentum.

    Args:
        lr: learning rate at the reference batch size.
        momentum: factor on the running sum of gradients.
        nesterov: look ahead along the momentum.
        weight_decay: L2 penalty on weights.
        norm_weight_decay: the same for norm layers; null takes weight_decay.
        bias_weight_decay: the same for biases; null takes weight_decay.
        lr_multipliers: name prefix of parameters -> factor on lr, such as {backbone: 0.1}.
        reference_batch_size: global batch size that lr is meant for; lr is scaled linearly to the real one; null never scales.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 1e-4,
        norm_weight_decay: float | None = 0.0,
        bias_weight_decay: float | None = None,
        lr_multipliers: dict[str, float] = {},  # noqa: B006 (never changed)
        reference_batch_size: int | None = 16,
    ) -> None:
        _require_at_least(1, reference_batch_size=reference_batch_size)
        groups = parameter_groups(
            model,
            lr=lr,
            weight_decay=weight_decay,
            norm_weight_decay=norm_weight_decay,
            bias_weight_decay=bias_weight_decay,
            lr_multipliers=lr_multipliers,
        )
        super().__init__(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
        self.reference_batch_size = reference_batch_size


@OPTIMIZERS.register
class AdamW(torch.optim.AdamW, Optimizer):
    """Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101).

    Args:
        lr: learning rate at the reference batch size.
        betas: decay of the running means of gradient and squared gradient.
        eps: added to the denominator.
        weight_decay: decay of weights.
        norm_weight_decay: the same for norm layers; null takes weight_decay.
        bias_weight_decay: the same for biases; null takes weight_decay.
        lr_multipliers: name prefix of parameters -> factor on lr, such as {backbone: 0.1}.
        reference_batch_size: global batch size that lr is meant for; lr is scaled linearly to the real one; null never scales.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        norm_weight_decay: float | None = 0.0,
        bias_weight_decay: float | None = 0.0,
        lr_multipliers: dict[str, float] = {},  # noqa: B006 (never changed)
        reference_batch_size: int | None = 16,
    ) -> None:
        _require_at_least(1, reference_batch_size=reference_batch_size)
        groups = parameter_groups(
            model,
            lr=lr,
            weight_decay=weight_decay,
            norm_weight_decay=norm_weight_decay,
            bias_weight_decay=bias_weight_decay,
            lr_multipliers=lr_multipliers,
        )
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=True)
        self.reference_batch_size = reference_batch_size


def scale_learning_rate(optimizer: torch.optim.Optimizer, batch_size: int) -> str:
    """Scales every learning rate linearly from the reference batch size (https://arxiv.org/abs/1706.02677).

    Args:
        optimizer: an `Optimizer` of this package.
        batch_size: the global batch size.

    Returns:
        one line that says what was done.
    """
    reference = getattr(optimizer, "reference_batch_size", None)
    lr = optimizer.defaults["lr"]
    if reference is None:
        return f"learning rate {lr:g}, not scaled (reference_batch_size is null; batch size {batch_size})"
    scale = batch_size / reference
    for group in optimizer.param_groups:
        group["initial_lr"] *= scale
        group["lr"] = group["initial_lr"]
    if scale == 1:
        return f"learning rate {lr:g}, as given for batch size {reference}"
    return (
        f"learning rate {lr:g} at reference batch size {reference} -> {lr * scale:g} at batch size {batch_size}"
        " (optimizer.reference_batch_size=null turns this off)"
    )
