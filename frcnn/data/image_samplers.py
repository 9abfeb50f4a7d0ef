"""How often each image is trained on, where classes are not equally frequent."""

from __future__ import annotations

import numpy as np

from frcnn.data.ground_truth import images_by_class
from frcnn.data.roles import IMAGE_SAMPLERS, Dataset, ImageSampler
from frcnn.errors import UserError


@IMAGE_SAMPLERS.register
class RepeatFactorSampler(ImageSampler):
    """Images with a rare class come several times an epoch (LVIS, https://arxiv.org/abs/1908.03195, appendix B.3).

    A class in a share f of the images has the factor max(1, sqrt(threshold / f)), an image that of its rarest class. What a
    factor has behind the point is a probability.

    Args:
        dataset: the training images.
        threshold: classes in a smaller share of the images are repeated.
    """

    def __init__(self, dataset: Dataset, *, threshold: float = 0.001) -> None:
        super().__init__(dataset)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {threshold}")
        self.threshold = threshold
        self._factors: np.ndarray | None = None

    @property
    def factors(self) -> np.ndarray:
        """[n] float64, at least 1: how many times an epoch each image comes, on average."""
        if self._factors is None:
            self._factors = np.ones(len(self.dataset))
            for images in images_by_class(self.dataset.ground_truth()):
                share = max(1, len(images)) / len(self.dataset)
                self._factors[images] = np.maximum(self._factors[images], np.sqrt(self.threshold / share))
        return self._factors

    @property
    def epoch_size(self) -> float:
        return float(self.factors.sum())

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        whole = np.floor(self.factors)
        times = whole + (rng.random(len(whole)) < self.factors - whole)  # [n]
        return rng.permutation(np.repeat(np.arange(len(times)), times.astype(np.int64)))


@IMAGE_SAMPLERS.register
class ClassAwareSampler(ImageSampler):
    """Every class is drawn equally often, and then one of its images (https://arxiv.org/abs/1512.05830).

    An epoch is as many draws as there are images; images without objects are never drawn.

    Args:
        dataset: the training images.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._images_of_class: list[np.ndarray] | None = None

    @property
    def images_of_class(self) -> list[np.ndarray]:
        """For each class that has objects, the images that hold it."""
        if self._images_of_class is None:
            self._images_of_class = [images for images in images_by_class(self.dataset.ground_truth()) if len(images)]
            if not self._images_of_class:
                raise UserError("ClassAwareSampler: the data set has no objects, so there is no class to draw")
        return self._images_of_class

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        images = self.images_of_class
        classes = rng.integers(len(images), size=len(self.dataset)).tolist()
        return np.array([images[k][rng.integers(len(images[k]))] for k in classes], np.int64)
