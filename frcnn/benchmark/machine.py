"""The machine that a number was measured on, and how much memory the process needed."""

from __future__ import annotations

import platform
import re
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, device, versions: what a reader needs to judge a time."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def machine_text(machine: dict[str, Any]) -> str:
    """The same as one line."""
    return (
        f"{machine['processor']}, {machine['threads']} threads, device {machine['device']}, torch {machine['torch']}, "
        f"torchvision {machine['torchvision']}, Python {machine['python']}, {machine['system']}"
    )


def peak_memory(device: torch.device) -> int:
    """The most memory in bytes so far: allocated on the CUDA device, else resident in this process (torch itself included).

    Linux counts the peak of `getrusage` over from the process that started this one; VmHWM begins with the program.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        return found[1].strip()
    return platform.processor() or platform.machine()
