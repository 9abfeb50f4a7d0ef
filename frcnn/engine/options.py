"""How the loop runs, and what each step tells."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frcnn.engine.durations import Duration, require_some
from frcnn.precision import Amp


@dataclass(frozen=True)
class TrainerOptions:
    """How the loop runs.

    Args:
        duration: length of the training, such as 12ep or 90000it.
        amp: mixed precision of the forward pass: off (float32), bf16 or fp16.
        clip_grad_norm: largest global norm of the gradient; null does not clip.
        accumulate: a batch is split into this many parts whose gradients are averaged before one step. Each part divides its
            losses by its own count, so with loss_normalizer sampled or positive, and in the ROI heads, the mean of the parts is
            near the loss of the whole batch and not equal to it; batch norms see one part at a time.
        channels_last: weights and activations in NHWC memory order, faster for convolutions on most devices.
        compile: torch.compile for the backbone.
    """

    duration: Duration
    amp: Amp = "off"
    clip_grad_norm: float | None = None
    accumulate: int = 1
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        require_some("duration", self.duration)
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        if self.clip_grad_norm is not None and self.clip_grad_norm <= 0:
            raise ValueError(f"clip_grad_norm must be above 0, got {self.clip_grad_norm}; null does not clip")


@dataclass
class StepFacts:
    """What the last step measured.

    Args:
        losses: name -> scalar without gradient, of this process; means over the parts of an accumulated batch.
        grad_norm: global norm of the gradient before clipping; None where nothing asked for it.
        lr: learning rate of the first parameter group.
        data_seconds: time spent waiting for the batch.
        seconds: time of the whole step, waiting included.
    """

    losses: dict[str, Tensor]
    grad_norm: Tensor | None
    lr: float
    data_seconds: float
    seconds: float
