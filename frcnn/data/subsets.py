"""Data sets made of others: several as one, a fold of one, a few images of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from frcnn.data.ground_truth import classes_by_image, concatenated, images_by_class, selected
from frcnn.data.roles import DATASETS, Category, Dataset, GroundTruth, Sample
from frcnn.errors import UserError


@DATASETS.register
class ConcatDataset(Dataset):
    """Several data sets with the same classes, one behind the other.

    Images of two of them may have the same id in training. In a test set they may not: detections are told apart by id.

    Args:
        datasets: two or more; class k must have the same name in all.
    """

    def __init__(self, *, datasets: list[Dataset]) -> None:
        if not datasets:
            raise ValueError("datasets must name at least one data set, got none")
        self.datasets = list(datasets)
        self.provides = frozenset.intersection(*(dataset.provides for dataset in datasets))

    @property
    def categories(self) -> Sequence[Category]:  # type: ignore[override]
        first, *others = (dataset.categories for dataset in self.datasets)
        names = [category.name for category in first]
        for number, other in enumerate(others, start=1):
            if [category.name for category in other] != names:
                raise UserError(
                    f"datasets.{number} has the categories {', '.join(c.name for c in other)}, but datasets.0 has "
                    f"{', '.join(names)}; a class must have the same place (in the order of the category ids) in all"
                )
        return first

    @property
    def image_sizes(self) -> np.ndarray:
        return np.concatenate([dataset.image_sizes for dataset in self.datasets])

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, index: int) -> Sample:
        for dataset in self.datasets:
            if index < len(dataset):
                return dataset[index]
            index -= len(dataset)
        raise IndexError(f"there are {len(self)} images")

    def ground_truth(self) -> GroundTruth:
        return concatenated([dataset.ground_truth() for dataset in self.datasets], self.categories)


class _Subset(Dataset):
    """Some images of a data set, chosen at first use."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.provides = dataset.provides
        self._index: np.ndarray | None = None

    def choose(self) -> np.ndarray:
        """[n] int64, ascending: which images of the data set."""
        raise NotImplementedError(f"{type(self).__name__} must define choose()")

    @property
    def index(self) -> np.ndarray:
        if self._index is None:
            self._index = self.choose()
        return self._index

    @property
    def categories(self) -> Sequence[Category]:  # type: ignore[override]
        return self.dataset.categories

    @property
    def image_sizes(self) -> np.ndarray:
        return self.dataset.image_sizes[self.index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[int(self.index[index])]

    def ground_truth(self) -> GroundTruth:
        return selected(self.dataset.ground_truth(), self.index)


@DATASETS.register
class KFoldDataset(_Subset):
    """One of k folds of a data set, for testing, or all others, for training. The same seed gives the same folds.

    Args:
        dataset: all images.
        num_folds: k.
        fold: which of them, 0 to k - 1.
        part: test is the fold itself, train is everything else.
        seed: of the division.
    """

    def __init__(
        self, *, dataset: Dataset, num_folds: int = 5, fold: int, part: Literal["train", "test"], seed: int = 0
    ) -> None:
        super().__init__(dataset)
        if num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, got {num_folds}")
        if not 0 <= fold < num_folds:
            raise ValueError(f"fold must be in 0..{num_folds - 1}, got {fold}")
        self.num_folds = num_folds
        self.fold = fold
        self.part = part
        self.seed = seed

    def choose(self) -> np.ndarray:
        if len(self.dataset) < self.num_folds:
            raise UserError(f"{len(self.dataset)} images cannot be divided into {self.num_folds} folds")
        fold_of = np.arange(len(self.dataset)) % self.num_folds
        fold_of = np.random.default_rng(self.seed).permutation(fold_of)  # [n]
        return np.flatnonzero((fold_of == self.fold) == (self.part == "test"))


@DATASETS.register
class FewShotDataset(_Subset):
    """As few images as give every class a number of objects: rare classes first, images drawn with a seed.

    An image brings all its objects, so frequent classes end up with more. A class with fewer objects has all of them.

    Args:
        dataset: all images.
        shots: objects that each class has at least, crowds not counted.
        seed: of the draw.
    """

    def __init__(self, *, dataset: Dataset, shots: int, seed: int = 0) -> None:
        super().__init__(dataset)
        if shots < 1:
            raise ValueError(f"shots must be at least 1, got {shots}")
        self.shots = shots
        self.seed = seed

    def choose(self) -> np.ndarray:
        ground_truth = self.dataset.ground_truth()
        num_classes = len(ground_truth.categories)
        images_of_class, classes_of_image = images_by_class(ground_truth), classes_by_image(ground_truth)
        rng = np.random.default_rng(self.seed)
        chosen = np.zeros(len(classes_of_image), bool)
        have = np.zeros(num_classes, np.int64)
        num_objects = np.bincount(ground_truth.classes[~ground_truth.iscrowd], minlength=num_classes)  # [K]
        for k in np.argsort(num_objects, kind="stable").tolist():
            for image in rng.permutation(images_of_class[k]).tolist():
                if have[k] >= self.shots:
                    break
                if not chosen[image]:
                    chosen[image] = True
                    have += np.bincount(classes_of_image[image], minlength=num_classes)
        return np.flatnonzero(chosen)
