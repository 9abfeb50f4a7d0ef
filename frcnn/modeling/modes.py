"""Running modules for a moment as if in evaluation, and leaving them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each submodule has the mode that it had before."""
    modes = {part: part.training for module in modules for part in module.modules()}
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def unobserved(*modules: nn.Module) -> Iterator[None]:
    """Runs modules without a trace: no gradient, no statistics updated, no dropout, no synchronised norm waiting."""
    with evaluation_mode(*modules), torch.no_grad():
        yield
