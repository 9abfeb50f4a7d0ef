"""Small COCO files and images for the tests of the data."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest


def coco(annotations=(), images=None, categories=None):
    """A COCO document with two images of 100 x 80 (ids 10 and 20) and the categories 3 and 7."""
    return {
        "images": images
        or [
            {"id": 10, "file_name": "a.png", "width": 100, "height": 80},
            {"id": 20, "file_name": "b.png", "width": 100, "height": 80},
        ],
        "annotations": list(annotations),
        "categories": categories or [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


@pytest.fixture
def make_coco():
    return coco


@pytest.fixture
def write_coco(tmp_path):
    """Writes annotations (each [image id, category id, box] or a dict) to a file and returns its path."""

    def write(annotations=(), name="instances.json", **lists):
        rows = [
            row
            if isinstance(row, dict)
            else {"id": 100 + index, "image_id": row[0], "category_id": row[1], "bbox": row[2]}
            for index, row in enumerate(annotations)
        ]
        path = tmp_path / name
        path.write_text(json.dumps(coco(rows, **lists)))
        return str(path)

    return write


@pytest.fixture
def image_folder(tmp_path):
    """a.png and b.png of 100 x 80: one red, one blue."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, bgr in (("a.png", (0, 0, 255)), ("b.png", (255, 0, 0))):
        cv2.imwrite(str(folder / name), np.full((80, 100, 3), bgr, np.uint8))
    return str(folder)


@pytest.fixture(scope="session")
def shared_datasets():
    """The folder with real data sets, where there is one."""
    beside = Path(__file__).parents[3] / "shared" / "datasets"
    folder = Path(os.environ.get("FRCNN_DATASETS") or beside)
    if not (folder / "bccd").is_dir():
        pytest.skip(f"no real images: there is no folder 'bccd' in {folder} (set FRCNN_DATASETS)")
    return folder
