"""Mixed precision: autocast and the gradient scaler, chosen by one word."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Amp = Literal["off", "bf16", "fp16"]


def autocast(amp: Amp, device: torch.device) -> AbstractContextManager:
    """The context for a forward pass.

    Args:
        amp: "off" is float32.
        device: where the model is.
    """
    if amp == "off":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if amp == "bf16" else torch.float16)


def gradient_scaler(amp: Amp, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss so that float16 gradients do not vanish; does nothing for the other precisions.

    Args:
        amp: only "fp16" needs it: bfloat16 has float32's range.
        device: where the model is.
    """
    return torch.amp.GradScaler(device.type, enabled=amp == "fp16")
