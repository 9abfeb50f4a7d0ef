"""frcnn: Faster R-CNN that can be taken apart and put together differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from frcnn.deploy.predict import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    path: str | os.PathLike[str],
    device: str = "auto",
    imports: Sequence[str | os.PathLike[str]] = (),
    overrides: Sequence[str] = (),
) -> Predictor:
    """A trained detector, ready to be called with images.

    Args:
        path: a checkpoint of a run, which carries the config and the class names; or its https:// address.
        device: "auto" (CUDA if there is any, else the CPU), "cpu", "cuda", "cuda:N" or "mps".
        imports: the files of the project whose components the model uses. Nothing named in a checkpoint is imported.
        overrides: `key=value` words for the checkpoint's config, such as "test_time_augmentation.sizes=[640, 800]".

    Returns:
        A Predictor: `frcnn.load("best.pth")("image.jpg").draw()`.

    Raises:
        UserError: the checkpoint cannot be read, or needs a project's file.
    """
    from frcnn.deploy.predict import load_predictor  # here, so that importing frcnn costs no torch

    return load_predictor(path, device=device, imports=imports, overrides=overrides)
