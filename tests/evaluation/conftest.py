"""Data sets and detections of a few boxes, written by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from frcnn.data.roles import Category, Dataset, GroundTruth
from frcnn.structures import Detections

Object = tuple[int, int, Sequence[float]]
"""(image id, class, x1 y1 x2 y2), or with a fourth element "crowd"."""


class MemoryDataset(Dataset):
    def __init__(self, truth: GroundTruth) -> None:
        self.truth = truth
        self.categories = truth.categories

    def ground_truth(self) -> GroundTruth:
        return self.truth


@pytest.fixture(scope="session")
def in_memory() -> type[MemoryDataset]:
    """in_memory(ground truth) -> Dataset."""
    return MemoryDataset


@pytest.fixture(scope="session")
def coco_val2014_100() -> Path:
    """The folder of 100 annotated COCO images (without pictures) and results that COCO publishes for them."""
    roots = [os.environ.get("FRCNN_DATASETS"), Path(__file__).parents[3] / "shared" / "datasets"]
    for folder in [Path(root) / "coco_val2014_100" for root in roots if root]:
        if folder.is_dir():
            return folder
    pytest.skip("coco_val2014_100 is neither under FRCNN_DATASETS nor under ../shared/datasets")


@pytest.fixture
def dataset_of() -> Callable[..., MemoryDataset]:
    def make(
        objects: Sequence[tuple],
        image_ids: Sequence[int] = (1, 2),
        names: Sequence[str] = ("cat", "dog"),
        size=(480, 640),
    ) -> MemoryDataset:
        place = {image_id: i for i, image_id in enumerate(image_ids)}
        objects = sorted(objects, key=lambda o: place[o[0]])
        boxes = np.array([o[2] for o in objects], dtype=np.float64).reshape(-1, 4)
        return MemoryDataset(
            GroundTruth(
                categories=[Category(10 * (k + 1), name) for k, name in enumerate(names)],
                image_ids=np.array(image_ids, dtype=np.int64),
                image_sizes=np.tile(np.array(size, dtype=np.int64), (len(image_ids), 1)),
                image_index=np.array([place[o[0]] for o in objects], dtype=np.int64),
                classes=np.array([o[1] for o in objects], dtype=np.int64),
                boxes=boxes,
                areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
                iscrowd=np.array([len(o) > 3 for o in objects], dtype=bool),
            )
        )

    return make


@pytest.fixture
def found() -> Callable[..., Detections]:
    """found((class, score, box), ...) -> Detections of one image."""

    def make(*detections: tuple[int, float, Sequence[float]]) -> Detections:
        return Detections(
            boxes=torch.tensor([d[2] for d in detections], dtype=torch.float32).reshape(-1, 4),
            scores=torch.tensor([d[1] for d in detections], dtype=torch.float32),
            classes=torch.tensor([d[0] for d in detections], dtype=torch.int64),
            index=torch.arange(len(detections)),
        )

    return make
