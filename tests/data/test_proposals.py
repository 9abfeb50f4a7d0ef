"""Proposals from a file: best first, clipped, moved with the image, and missed by name."""

import json

import numpy as np
import pytest

from frcnn.data.coco import CocoDataset
from frcnn.data.collate import pack
from frcnn.data.geometry import crop, flip
from frcnn.errors import UserError

ROWS = [
    {"image_id": 20, "bbox": [0, 0, 10, 10], "score": 0.5, "category_id": 1},
    {"image_id": 10, "bbox": [10, 20, 30, 40], "score": 0.2},
    {"image_id": 10, "bbox": [90, 70, 30, 40], "score": 0.9},
    {"image_id": 99, "bbox": [1, 1, 1, 1], "score": 0.9},
    {"image_id": 10, "bbox": [50, 50, 10, 10], "score": -3},
]


@pytest.fixture
def dataset(write_coco, image_folder, tmp_path):
    def make(rows=ROWS, **options):
        path = tmp_path / "proposals.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return CocoDataset(annotations=write_coco(), images=image_folder, proposals=str(path), **options)

    return make


def test_the_best_come_first_and_are_clipped(dataset):
    assert dataset().provides == {"proposals"}
    sample = dataset()[0]
    assert sample.proposals.dtype == np.float32
    assert sample.proposals.tolist() == [[90, 70, 100, 80], [10, 20, 40, 60], [50, 50, 60, 60]]
    assert dataset(proposals_top_n=2)[0].proposals.tolist() == [[90, 70, 100, 80], [10, 20, 40, 60]]
    assert dataset(proposals_top_n=2)[1].proposals.tolist() == [[0, 0, 10, 10]]


def test_they_move_with_the_image_into_the_batch(dataset):
    samples = [dataset()[0], dataset()[1]]
    assert flip(samples[0]).proposals.tolist() == [[0, 70, 10, 80], [60, 20, 90, 60], [40, 50, 50, 60]]
    cut = crop(samples[0], 20, 30, 35, 25)
    assert cut.proposals.tolist() == [[0, 0, 20, 25], [30, 20, 35, 25]]
    batch = pack([cut, samples[1]], with_targets=False).unpack()
    assert [boxes.tolist() for boxes in batch.proposals] == [[[0, 0, 20, 25], [30, 20, 35, 25]], [[0, 0, 10, 10]]]
    assert batch.targets is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS[1:], "no proposals for 1 of the 2 images of the data set, such as image id 20; expected at least one"),
        ([], "no proposals for 2 of the 2 images"),
        (
            [*ROWS, {"image_id": 10, "bbox": [1, 1, 0, 5], "score": 1}],
            "1 of 6 proposals cannot be used, such as [5] of image 10",
        ),
        ([{"image_id": 10, "bbox": [1, 1, 5], "score": 1}], "proposals[0]: Expected `array` of length 4"),
        ([{"image_id": 10, "bbox": [1, 1, 5, 5]}], "missing required field `score`"),
        ("{}", "expected proposals in the form of COCO's results"),
        ("[{", "expected proposals in the form of COCO's results"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(dataset, rows, expected):
    broken = dataset(rows)
    with pytest.raises(UserError) as caught:
        broken.load()
    assert "proposals.json: " in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_of_proposals_below_one_is_refused(dataset):
    with pytest.raises(ValueError, match="proposals_top_n must be at least 1, got 0"):
        dataset(proposals_top_n=0)
