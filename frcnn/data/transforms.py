"""Transforms of an image and its objects together. Every draw comes from the generator that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from frcnn.data.geometry import crop, flip, resize, shortest_edge_size
from frcnn.data.images import opencv
from frcnn.data.roles import TRANSFORMS, Sample, Transform

Others = Callable[[int], list[Sample]]


@TRANSFORMS.register
class ResizeShortestEdge(Transform):
    """Scales the image so that its shorter side gets one of the given lengths and its longer side stays below a limit.

    Args:
        sizes: lengths of the shorter side, in pixels.
        max_size: longest that the longer side may become, in pixels; the image is then scaled less.
        sampling: choice takes one of `sizes`; range takes any whole number between the two given.
        rounding: of the other side; half_up as detectron2 has it, floor as torchvision does.
    """

    def __init__(
        self,
        *,
        sizes: list[int],
        max_size: int = 1333,
        sampling: Literal["choice", "range"] = "choice",
        rounding: Literal["half_up", "floor"] = "half_up",
    ) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes must be one or more lengths of at least 1 pixel, got {sizes}")
        if sampling == "range" and (len(sizes) != 2 or sizes[0] > sizes[1]):
            raise ValueError(f"sampling: range needs sizes of the form [shortest, longest], got {sizes}")
        if max_size < 1:
            raise ValueError(f"max_size must be at least 1 pixel, got {max_size}")
        self.sizes = list(sizes)
        self.max_size = max_size
        self.sampling = sampling
        self.rounding = rounding

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        if self.sampling == "range":
            size = int(rng.integers(self.sizes[0], self.sizes[1] + 1))
        else:
            size = self.sizes[int(rng.integers(len(self.sizes)))] if len(self.sizes) > 1 else self.sizes[0]
        height, width = sample.image.shape[:2]
        return resize(sample, shortest_edge_size(height, width, size, self.max_size, self.rounding))


@TRANSFORMS.register
class RandomHorizontalFlip(Transform):
    """Mirrors left and right; keypoints with "left" and "right" in their names change places.

    Args:
        probability: share of the images that are mirrored.
    """

    def __init__(self, *, probability: float = 0.5) -> None:
        check_fraction("probability", probability)
        self.probability = probability

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        if rng.random() >= self.probability:
            return sample
        return flip(sample)


@TRANSFORMS.register
class RandomCrop(Transform):
    """Cuts a window out of the image, at a random place. Boxes are clipped to it.

    Args:
        size: (height, width) of the window: pixels (at most the image's), or shares of the image's sides in (0, 1].
        mode: absolute, size is in pixels; relative, in shares; relative_range, shares are drawn between size and 1.
        min_area_left: boxes of which no more than this share of their area is left are dropped.
    """

    def __init__(
        self,
        *,
        size: tuple[float, float],
        mode: Literal["absolute", "relative", "relative_range"] = "relative_range",
        min_area_left: float = 0.0,
    ) -> None:
        if min(size) <= 0 or (mode != "absolute" and max(size) > 1):
            expected = "above 0 pixels" if mode == "absolute" else "in (0, 1]"
            raise ValueError(f"size must be {expected} with mode: {mode}, got {list(size)}")
        check_fraction("min_area_left", min_area_left)
        self.size = size
        self.mode = mode
        self.min_area_left = min_area_left

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        image_size = np.array(sample.image.shape[:2])
        if self.mode == "absolute":
            window = np.minimum(image_size, np.array(self.size).round())
        elif self.mode == "relative":
            window = np.floor(image_size * self.size + 0.5)
        else:
            window = np.floor(image_size * rng.uniform(self.size, 1.0) + 0.5)
        height, width = np.maximum(window, 1).astype(int).tolist()
        y = int(rng.integers(image_size[0] - height + 1))
        x = int(rng.integers(image_size[1] - width + 1))
        return crop(sample, x, y, width, height, self.min_area_left)


@TRANSFORMS.register
class ScaleJitter(Transform):
    """Scales the image to fit a random multiple of a target size. Large scale jitter is 0.1 to 2.0, then FixedSizeCrop.

    Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, CVPR 2021.

    Args:
        target_size: (height, width) in pixels that the image fits into at scale 1, keeping its shape.
        min_scale: smallest multiple.
        max_scale: largest multiple.
    """

    def __init__(
        self, *, target_size: tuple[int, int] = (1024, 1024), min_scale: float = 0.1, max_scale: float = 2.0
    ) -> None:
        if min(target_size) < 1:
            raise ValueError(f"target_size must be at least 1 pixel, got {list(target_size)}")
        if not 0 < min_scale <= max_scale:
            raise ValueError(f"expected 0 < min_scale <= max_scale, got {min_scale} and {max_scale}")
        self.target_size = target_size
        self.min_scale = min_scale
        self.max_scale = max_scale

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        height, width = sample.image.shape[:2]
        jitter = rng.uniform(self.min_scale, self.max_scale)
        scale = min(self.target_size[0] * jitter / height, self.target_size[1] * jitter / width)
        return resize(sample, (max(1, round(height * scale)), max(1, round(width * scale))))


@TRANSFORMS.register
class FixedSizeCrop(Transform):
    """Cuts a window of a fixed size at a random place; a smaller image is padded at the right and the bottom.

    Args:
        size: (height, width) of the window in pixels.
        pad: whether to pad; without it, a side that is too short stays so.
        pad_value: RGB colour of the padding, 0 to 255.
        min_area_left: boxes of which no more than this share of their area is left are dropped.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        pad: bool = True,
        pad_value: tuple[int, int, int] = (128, 128, 128),
        min_area_left: float = 0.0,
    ) -> None:
        if min(size) < 1:
            raise ValueError(f"size must be at least 1 pixel, got {list(size)}")
        if min(pad_value) < 0 or max(pad_value) > 255:
            raise ValueError(f"pad_value must be in 0..255, got {list(pad_value)}")
        check_fraction("min_area_left", min_area_left)
        self.size = size
        self.pad = pad
        self.pad_value = pad_value
        self.min_area_left = min_area_left

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        height, width = sample.image.shape[:2]
        window = min(height, self.size[0]), min(width, self.size[1])
        y = int(rng.integers(height - window[0] + 1))
        x = int(rng.integers(width - window[1] + 1))
        sample = crop(sample, x, y, window[1], window[0], self.min_area_left)
        if not self.pad or window == tuple(self.size):
            return sample
        image = np.empty((*self.size, 3), np.uint8)
        image[:] = self.pad_value
        image[: window[0], : window[1]] = sample.image
        return replace(sample, image=image)


@TRANSFORMS.register
class ColorJitter(Transform):
    """Changes brightness, contrast and saturation by random factors, in this order, without rounding between them.

    Args:
        brightness: each image is multiplied by a factor in 1 - brightness to 1 + brightness.
        contrast: likewise, the distance of each pixel to the mean grey of the image.
        saturation: likewise, the distance of each pixel to its own grey.
    """

    GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma of R, G, B

    def __init__(self, *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        spread = np.array([self.brightness, self.contrast, self.saturation])
        brightness, contrast, saturation = rng.uniform(np.maximum(0, 1 - spread), 1 + spread)
        mean_grey = brightness * (opencv().mean(sample.image)[:3] @ self.GREY)
        # All three are linear in the pixel, so one 3 x 4 matrix and one pass over the image do them together.
        desaturate = saturation * np.eye(3) + (1 - saturation) * self.GREY[None, :]
        matrix = np.column_stack([contrast * brightness * desaturate, np.full(3, (1 - contrast) * mean_grey)])
        return replace(sample, image=opencv().transform(sample.image, matrix))


def check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
