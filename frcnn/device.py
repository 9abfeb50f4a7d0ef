"""Where the computation runs: the text a person writes, and the device it stands for."""

from __future__ import annotations

import os

import torch

from frcnn.errors import UserError


def choose_device(text: str = "auto") -> torch.device:
    """The device a person asked for, checked to be there.

    Args:
        text: "auto" (CUDA if there is any, else the CPU), "cpu", "cuda", "cuda:1" or "mps". MPS is never chosen
            silently: some operations of a detector are missing there or differ.

    Returns:
        The device.

    Raises:
        UserError: a text that is none of these, or a device that this machine or this PyTorch lacks.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device must be auto, cpu, cuda, cuda:N or mps, got {text!r}")
    if device.type == "cuda":
        _require_cuda(text, device.index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {text!r} was asked for, but PyTorch {torch.__version__} finds no MPS here; use cpu")
    return device


def _require_cuda(text: str, index: int | None) -> None:
    if torch.version.cuda is None and torch.version.hip is None:
        raise UserError(
            f"device {text!r} was asked for, but PyTorch {torch.__version__} was built for the CPU only; "
            "install a CUDA build of torch, or use device cpu"
        )
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
        raise UserError(
            f"device {text!r} was asked for; PyTorch {torch.__version__} was built with {built} but finds no usable GPU"
            f"{hint}; check the driver with nvidia-smi, or use device cpu"
        )
    count = torch.cuda.device_count()
    if index is not None and index >= count:
        raise UserError(f"device {text!r} was asked for, but there are {count} GPUs: cuda:0 to cuda:{count - 1}")
