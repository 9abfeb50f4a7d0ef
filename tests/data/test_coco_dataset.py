"""A data set of one JSON file and a folder of images."""

import json
import logging
import pickle

import cv2
import numpy as np
import pytest

from frcnn.data.coco import CocoDataset
from frcnn.data.roles import DATASETS
from frcnn.errors import UserError


def test_samples_are_images_with_clipped_boxes(write_coco, image_folder):
    path = write_coco([[20, 7, [90, 10, 20, 5]], [20, 3, [0, 0, 4, 4]]])
    dataset = CocoDataset(annotations=path, images=image_folder)
    assert len(dataset) == 2
    assert [category.name for category in dataset.categories] == ["cat", "dog"]
    sample = dataset[1]
    assert sample.image.shape == (80, 100, 3)
    assert sample.image[0, 0].tolist() == [0, 0, 255]
    assert sample.boxes.tolist() == [[90, 10, 100, 15], [0, 0, 4, 4]]
    assert sample.classes.tolist() == [1, 0]
    assert (sample.image_id, sample.original_size) == (20, (80, 100))
    assert dataset[0].boxes.shape == (0, 4)
    assert dataset.image_sizes.tolist() == [[80, 100], [80, 100]]


def test_nothing_is_read_before_first_use_and_little_is_pickled(write_coco, image_folder):
    assert DATASETS.components["CocoDataset"] is CocoDataset
    CocoDataset(annotations="nowhere.json", images="nowhere")
    dataset = CocoDataset(annotations=write_coco([[10, 3, [0, 0, 4, 4]]] * 5000), images=image_folder)
    dataset.load()
    data = pickle.dumps(dataset)
    assert len(data) < 3000
    assert pickle.loads(data)[0].boxes.shape == (5000, 4)


def test_relative_paths_are_under_the_variable(write_coco, image_folder, tmp_path, monkeypatch):
    write_coco([], name="some.json")
    monkeypatch.setenv("FRCNN_DATASETS", str(tmp_path))
    assert len(CocoDataset(annotations="some.json", images="images")) == 2


@pytest.mark.parametrize(
    ("setting", "expected"), [("/data", "FRCNN_DATASETS, which is '/data'"), (None, "which is not set, so 'datasets'")]
)
def test_a_missing_file_names_its_full_path_and_the_variable(monkeypatch, tmp_path, setting, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRCNN_DATASETS", raising=False)
    if setting:
        monkeypatch.setenv("FRCNN_DATASETS", setting)
    with pytest.raises(UserError) as caught:
        CocoDataset(annotations="bccd/train.json", images="bccd/images").load()
    full = f"{setting or tmp_path / 'datasets'}/bccd/train.json"
    assert str(caught.value).startswith(f"{full}: there is no such annotation file")
    assert expected in str(caught.value)
    assert "put the data there" in str(caught.value)


def test_a_missing_absolute_path_is_not_blamed_on_the_variable(write_coco):
    with pytest.raises(UserError, match="/no/images: there is no such image folder; correct the path in the config"):
        CocoDataset(annotations=write_coco(), images="/no/images").load()


def test_an_address_says_where_to_fetch_the_file(write_coco, image_folder):
    dataset = CocoDataset(annotations=write_coco(), images=image_folder, proposals="detectron2://rpn/val.pkl")
    with pytest.raises(UserError) as caught:
        dataset.load()
    expected = (
        "fetch the proposal file from https://dl.fbaipublicfiles.com/detectron2/rpn/val.pkl, put it under FRCNN_DAT"
    )
    assert str(caught.value).startswith(f"detectron2://rpn/val.pkl: data sets are not downloaded; {expected}")


def test_what_was_found_is_logged_once(write_coco, image_folder, caplog):
    dataset = CocoDataset(
        annotations=write_coco([[10, 3, [0, 0, 4, 4]], [99, 3, [0, 0, 4, 4]]]),
        images=image_folder,
        on_bad_annotation="skip",
    )
    with caplog.at_level(logging.INFO, "frcnn"):
        dataset.load()
        dataset.load()
    counts, skipped = caplog.records
    assert "2 images, 1 objects of 2 classes, 0 crowds; kept 1 images without objects" in counts.getMessage()
    assert (skipped.levelname, "skipped 1 of 2 annotations" in skipped.getMessage()) == ("WARNING", True)


def test_a_size_unlike_the_files_names_image_and_sizes(write_coco, image_folder):
    image = {"id": 10, "file_name": "a.png", "width": 80, "height": 100}
    dataset = CocoDataset(annotations=write_coco(images=[image]), images=image_folder)
    with pytest.raises(
        UserError, match=r"a.png \(image id 10\): the file is 100 x 80 but the annotations say 80 x 100.*EXIF"
    ):
        dataset[0]


def test_blood_cells(shared_datasets):
    for split, images, boxes, tiny in (("train", 205, 2805, 2288), ("val", 87, 1138, 887)):
        path = shared_datasets / "bccd" / f"{split}.json"
        dataset = CocoDataset(annotations=str(path), images=str(shared_datasets / "bccd" / "images"))
        assert [category.name for category in dataset.categories] == ["RBC", "WBC", "Platelets"]
        truth = dataset.ground_truth()
        assert (len(dataset), len(truth.boxes)) == (images, boxes)
        one_pixel = np.flatnonzero(truth.areas == 1)
        assert dataset.load().annotation_ids[one_pixel].tolist() == [tiny]
        image = int(truth.image_index[one_pixel[0]])
        sample = dataset[image]
        assert sample.image.shape == (480, 640, 3)
        assert (sample.boxes[:, 2:] - sample.boxes[:, :2]).min() == 1
        rows = [row for row in json.loads(path.read_text())["annotations"] if row["image_id"] == sample.image_id]
        np.testing.assert_allclose([row["bbox"][2] for row in rows], sample.boxes[:, 2] - sample.boxes[:, 0])


def test_unreadable_image_is_named(write_coco, image_folder, tmp_path):
    data = cv2.imencode(".jpg", np.zeros((80, 100, 3), np.uint8))[1].tobytes()
    (tmp_path / "images" / "a.png").write_bytes(data[:-20])
    with pytest.raises(UserError, match=r"a.png \(image id 10\): the image file is cut short"):
        CocoDataset(annotations=write_coco(), images=image_folder)[0]
