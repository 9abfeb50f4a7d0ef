"""Which device a text stands for, and what is said of one that is not there."""

from __future__ import annotations

import pytest
import torch

from frcnn.device import choose_device
from frcnn.errors import UserError


@pytest.fixture
def cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_cuda_or_cpu_and_never_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "meta", ""])
def test_a_text_that_is_no_device_gets_the_choices(text: str) -> None:
    with pytest.raises(UserError, match="device must be auto, cpu, cuda, cuda:N or mps, got"):
        choose_device(text)


@pytest.mark.usefixtures("cpu_build")
def test_cuda_with_a_cpu_build_names_the_build() -> None:
    with pytest.raises(UserError, match=rf"PyTorch {torch.__version__.split('+')[0]}.* was built for the CPU only"):
        choose_device("cuda")


def test_cuda_without_a_gpu_says_what_torch_was_built_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"built with CUDA 13.2 but finds no usable GPU \(CUDA_VISIBLE_DEVICES is ''\)"):
        choose_device("cuda")


def test_a_gpu_beyond_the_last_gets_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"there are 2 GPUs: cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_mps_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="finds no MPS here"):
        choose_device("mps")
