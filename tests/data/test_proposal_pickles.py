"""Proposals in detectron2's form give what the same proposals give as JSON; what is anything else is one line."""

import os
import pickle

import numpy as np
import pytest

from frcnn.data.coco import CocoDataset
from frcnn.errors import UserError


def content(**changes):
    """Three images; 10 and 20 are those of the data set. The best proposal of 10 reaches over the image of 100 x 80."""
    boxes = [
        [[10, 20, 40, 60], [90, 70, 120, 110], [50, 50, 60, 60]],
        [[1, 1, 2, 2]],
        [[0, 0, 10, 10], [5, 5, 5, 9]],
    ]
    scores = [[0.2, 0.9, -3.0], [0.9], [0.5, 0.7]]
    said = {
        "ids": [10, 99, 20],
        "boxes": [np.array(of_image, np.float32) for of_image in boxes],
        "objectness_logits": [np.array(of_image, np.float32) for of_image in scores],
        "bbox_mode": 0,
        **changes,
    }
    return {key: value for key, value in said.items() if value is not None}


BEST_OF_10 = [[90, 70, 100, 80], [10, 20, 40, 60], [50, 50, 60, 60]]


@pytest.fixture
def dataset(write_coco, image_folder, tmp_path):
    def make(said, **options):
        path = tmp_path / "proposals.pkl"
        path.write_bytes(said if isinstance(said, bytes) else pickle.dumps(said, protocol=2))
        return CocoDataset(annotations=write_coco(), images=image_folder, proposals=str(path), **options)

    return make


def detectrons():
    """Detectron's names, and Python 2's texts as ids."""
    said = content(bbox_mode=None)
    return {
        "indexes": ["10", "99", "20"],
        "boxes": said["boxes"],
        "scores": said["objectness_logits"],
        "cfg": "MODEL: x",
    }


def as_xywh(boxes):
    return [np.concatenate([of_image[:, :2], of_image[:, 2:] - of_image[:, :2]], axis=1) for of_image in boxes]


@pytest.mark.parametrize(
    "said",
    [
        content(),
        content(bbox_mode=None),
        content(ids=["10", "99", "0020"]),
        content(ids=np.array([10, 99, 20])),
        content(objectness_logits=[scores[:, None] for scores in content()["objectness_logits"]]),
        content(boxes=as_xywh(content()["boxes"]), bbox_mode=1),
        detectrons(),
    ],
)
def test_every_way_to_write_it_gives_the_same(dataset, said):
    """Best first, clipped to the image; the box of 20 without width is left out, as detectron2 does."""
    found = dataset(said)
    assert found[0].proposals.dtype == np.float32
    assert found[0].proposals.tolist() == BEST_OF_10
    assert found[1].proposals.tolist() == [[0, 0, 10, 10]]
    assert dataset(said, proposals_top_n=2)[0].proposals.tolist() == BEST_OF_10[:2]


def test_a_box_mode_may_be_detectron2s_own(dataset):
    """Protocol 2 writes a member of an enumeration as a call of its class."""
    said = content(boxes=as_xywh(content()["boxes"]), bbox_mode="here")
    raw = pickle.dumps(said, protocol=2)
    before, mark, after = raw.partition(b"X\x04\x00\x00\x00here")
    assert mark
    raw = before + b"cdetectron2.structures.boxes\nBoxMode\nK\x01\x85R" + after
    assert dataset(raw)[0].proposals.tolist() == BEST_OF_10
    with pytest.raises(UserError, match=r"holds a member 'x' of an enumeration"):
        dataset(raw.replace(b"K\x01\x85R", b"U\x01x\x85R")).load()


def test_an_image_for_which_nothing_was_found_has_none(dataset):
    scores = [np.zeros(0), np.ones(1), np.zeros(0)]
    empty = content(boxes=[np.zeros((0, 4)), np.ones((1, 4)), np.zeros(0)], objectness_logits=scores)
    assert [dataset(empty)[index].proposals.shape for index in (0, 1)] == [(0, 4), (0, 4)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (content(ids=[10, 99, 10]), r"1 of its 3 ids are there before"),
        (content(ids=[10, 99, 21]), "no proposals for 1 of the 2 images of the data set, such as image id 20; expected at"),
        (content(ids=[10, 99, "b.png"]), "ids[2] is 'b.png'; expected a number, the image id in the annotation file"),
        (content(ids=[10, 99, "2007_000020"]), "ids[2] is '2007_000020'; expected a number"),
        (content(ids=[10, 20]), "2 ids, 3 boxes and 3 objectness_logits; expected detectron2's proposals: a dict with ids"),
        (content(boxes=None), "has the keys ids, objectness_logits, bbox_mode; expected detectron2's proposals"),
        (content(boxes=[1, 2, 3]), "its boxes or objectness_logits are not all arrays; expected"),
        ([1, 2], "holds a list; expected detectron2's proposals"),
        (content(bbox_mode=2), "its bbox_mode is XYXY_REL; expected XYXY_ABS (0) or XYWH_ABS (1), boxes in pixels"),
        (content(bbox_mode=4), "its bbox_mode is XYWHA_ABS; expected"),
        (content(bbox_mode="XYWH_ABS"), "its bbox_mode is 'XYWH_ABS'; expected"),
        (
            content(boxes=[np.ones((3, 5)), np.ones((1, 4)), np.ones((2, 4))]),
            "boxes[0] of image 10: its shape is [3, 5], and there are 3 objectness_logits; expected",
        ),
        (
            content(boxes=as_xywh(content()["boxes"])),
            "boxes[0] of image 10: 2 of 3 cannot be used, such as [90.0, 70.0, 30.0, 40.0] (x1, y1, x2, y2), score 0.9; "
            "expected finite numbers and no negative width or height; is bbox_mode right?",
        ),
        (
            content(objectness_logits=[np.array([0, np.nan, 1]), np.ones(1), np.ones(2)]),
            "boxes[0] of image 10: 1 of 3 cannot be used, such as [90.0, 70.0, 120.0, 110.0] (x1, y1, x2, y2), score nan",
        ),
        (b'[{"image_id": 10}]', "truncated or damaged"),
        (pickle.dumps(content())[:-20], "truncated or damaged"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_line(dataset, said, expected):
    broken = dataset(said)
    with pytest.raises(UserError) as caught:
        broken.load()
    assert "proposals.pkl: " in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


class Attack:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("key", ["ids", "boxes", "bbox_mode", "more"])
def test_nothing_in_the_file_is_run(dataset, tmp_path, key):
    broken = dataset(content(**{key: Attack(tmp_path / "attacked")}))
    with pytest.raises(UserError, match=r"mkdir'; only numpy arrays of numbers and plain Python are read"):
        broken.load()
    assert not (tmp_path / "attacked").exists()
