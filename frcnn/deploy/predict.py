"""A trained detector as a function of images; a checkpoint is all it needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from frcnn.assembly import build_model
from frcnn.checkpoint.load import inference_weights, load_checkpoint, load_weights
from frcnn.checkpoint.sources import fetch
from frcnn.data.collate import pack
from frcnn.data.images import read_image
from frcnn.data.known_categories import ANY_OBJECT
from frcnn.data.roles import Category, Sample, Transform
from frcnn.deploy.prediction import Prediction
from frcnn.device import choose_device
from frcnn.errors import UserError
from frcnn.experiment import Config
from frcnn.modeling.roles import Detector
from frcnn.modeling.tta import AugmentedDetector

logger = logging.getLogger("frcnn")

Image = str | os.PathLike[str] | np.ndarray | Any
"""A file, an array [h, w, 3] of uint8 RGB, or a PIL image."""


class Predictor:
    """Detects objects in images.

    Args:
        detector: with its trained weights.
        transforms: those of the test set the detector was chosen by, applied in this order.
        categories: of the classes 0..K-1.
        device: where the detector runs.
    """

    def __init__(
        self,
        detector: Detector | AugmentedDetector,
        transforms: Sequence[Transform],
        categories: Sequence[Category],
        device: torch.device | str = "cpu",
    ) -> None:
        self.detector = detector.to(device).eval()
        self.transforms = tuple(transforms)
        self.categories = tuple(categories)
        self.device = torch.device(device)

    @overload
    def __call__(self, images: list[Image] | tuple[Image, ...]) -> list[Prediction]: ...
    @overload
    def __call__(self, images: Image) -> Prediction: ...
    def __call__(self, images: Any) -> Any:
        """The objects of one image, or of each image of a list, which run as one batch.

        Args:
            images: a file, an array [h, w, 3] of uint8 RGB, a PIL image, or a list of these.

        Returns:
            A Prediction, or a list of them.

        Raises:
            UserError: a file that cannot be read.
            TypeError, ValueError: something that is no image.
        """
        if isinstance(images, (list, tuple)):
            return self._predict(images)
        return self._predict([images])[0]

    def _predict(self, images: Sequence[Image]) -> list[Prediction]:
        if not images:
            return []
        originals = [as_rgb(image) for image in images]
        samples = [self._transformed(image, index) for index, image in enumerate(originals)]
        batch = pack(samples, with_targets=False).unpack().to(self.device)
        with torch.inference_mode():
            detections = self.detector(batch).detections
        assert detections is not None  # the detector is in eval mode
        return [
            Prediction.of(found, image, self.categories) for image, found in zip(originals, detections, strict=True)
        ]

    def _transformed(self, image: np.ndarray, index: int) -> Sample:
        no_boxes, no_classes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        sample = Sample(image, no_boxes, no_classes, image_id=index, original_size=(image.shape[0], image.shape[1]))
        for transform in self.transforms:
            sample = transform(sample, np.random.default_rng(0), _no_others)
        return sample


def load_predictor(
    path: str | os.PathLike[str],
    device: str = "auto",
    imports: Sequence[str | os.PathLike[str]] = (),
    overrides: Sequence[str] = (),
) -> Predictor:
    """The predictor of a checkpoint; see `frcnn.load`.

    Images go through the transforms of the first test set in the checkpoint's config, or its test-time augmentation.
    """
    chosen = choose_device(device)
    checkpoint = load_checkpoint(fetch(path))
    for key in ("config", "categories"):
        if not checkpoint.get(key):
            raise UserError(
                f"{path}: carries no {key}; a training run writes it, and so does `frcnn convert-weights` with --config-file"
            )
    categories: Sequence[Category] = [as_category(category) for category in checkpoint["categories"]]
    experiment = Config.from_text(checkpoint["config"], f"config in {path}", overrides, imports=imports).build()
    detector = build_model(experiment, categories, chosen)
    report = load_weights(detector, inference_weights(checkpoint), source=str(path), strict=True)
    logger.info("%s", report.summary())
    if not detector.tells_classes_apart:
        categories = (ANY_OBJECT,)
    if experiment.test_time_augmentation is not None:
        return Predictor(AugmentedDetector(detector, experiment.test_time_augmentation), (), categories, chosen)
    test = next(iter(experiment.data.test.values()), None)
    return Predictor(detector, test.transforms if test else (), categories, chosen)


def as_category(plain: Mapping[str, Any]) -> Category:
    """A category as a checkpoint carries it."""
    skeleton = tuple((start, end) for start, end in plain.get("skeleton", ()))
    return Category(plain["id"], plain["name"], tuple(plain.get("keypoints", ())), skeleton)


def as_rgb(image: Image) -> np.ndarray:
    """Any image we take as an array [h, w, 3] of uint8 RGB.

    Raises:
        UserError: a file that cannot be read.
        TypeError, ValueError: something that is no image, or an array of another shape or type.
    """
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        if not path.is_file():
            raise UserError(f"{path}: {'a folder, not an image' if path.is_dir() else 'there is no such image file'}")
        return read_image(str(path))
    if not isinstance(image, np.ndarray) and hasattr(image, "getexif"):  # a PIL image, without importing PIL for others
        from PIL import ImageOps

        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image is a path, an array or a PIL image, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"expected an array [h, w, 3] of uint8 RGB, got {list(image.shape)} of {image.dtype}")
    return image


def _no_others(count: int) -> list[Sample]:
    raise UserError("a transform of the test set mixes images, which cannot be done when predicting one; remove it")
