"""Mixed precision: autocast and the gradient scaler, chosen by one word."""

from __future__ import annotations

from typing import Literal, get_args

import torch

Amp = Literal["off", "bf16", "fp16"]


def autocast(amp: Amp, device: torch.device) -> torch.autocast:
    """The context for a forward pass.

    Args:
        amp: "off" is float32, also inside another autocast.
        device: where the model is.

    Raises:
        ValueError: another word.
    """
    if amp not in get_args(Amp):
        raise ValueError(f"amp must be off, bf16 or fp16, got {amp!r}")
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=amp != "off")


def gradient_scaler(amp: Amp, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss so that float16 gradients do not vanish; does nothing for the other precisions.

    Args:
        amp: only "fp16" needs it: bfloat16 has float32's range.
        device: where the model is.
    """
    return torch.amp.GradScaler(device.type, enabled=amp == "fp16")
