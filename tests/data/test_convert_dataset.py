"""Pascal VOC and Cityscapes as COCO JSON files that CocoDataset reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from frcnn.cli.main import main
from frcnn.data.coco import CocoDataset
from frcnn.data.voc import voc_to_coco

VOC_XML = """<annotation><size><width>50</width><height>40</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>25</ymax></bndbox>
</object><object><name>person</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>40</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    folder = tmp_path / "VOC2007"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets/Main/trainval.txt").write_text("000005\n")
    (folder / "Annotations/000005.xml").write_text(VOC_XML)
    cv2.imwrite(str(folder / "JPEGImages/000005.jpg"), np.zeros((40, 50, 3), np.uint8))
    return folder


def test_voc(voc: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "annotations" / "voc.json"
    assert main(["convert-dataset", "voc", str(voc), "--split", "trainval", "--output", str(output)]) == 0
    assert "1 images, 2 objects" in capsys.readouterr().out
    dataset = CocoDataset(annotations=str(output), images=str(voc / "JPEGImages"))
    assert [dataset.categories[k].name for k in dataset[0].classes] == ["dog", "person"]
    # pixels 11 to 30, counted from 1, are the columns 10 to 30 of a box without its last side
    assert dataset[0].boxes.tolist() == [[10, 5, 30, 25], [0, 0, 50, 40]]
    ground_truth = dataset.ground_truth()
    assert ground_truth.difficult is not None
    assert ground_truth.difficult.tolist() == [False, True]


def test_ids_of_voc_are_the_names_so_that_no_two_years_share_one(voc: Path) -> None:
    def ids(*names: str) -> list[int]:
        (voc / "ImageSets/Main/val.txt").write_text("\n".join(names))
        for name in names:
            (voc / f"Annotations/{name}.xml").write_text(VOC_XML)
        return [image["id"] for image in voc_to_coco(voc, "val")["images"]]

    assert ids("000005", "000012") == [5, 12]
    assert ids("2008_000002", "2008_000005") == [2008000002, 2008000005]
    assert ids("mine_7", "000005") == [1, 2]


def test_voc_files_that_are_not(voc: Path, tmp_path: Path, capsys) -> None:
    words = ["convert-dataset", "voc", str(voc), "--output", str(tmp_path / "out.json"), "--split"]
    assert main([*words, "test"]) == 2
    assert "test.txt: there is no such list of images" in capsys.readouterr().err
    (voc / "ImageSets/Main/val.txt").write_text("")
    assert main([*words, "val"]) == 2
    assert "val.txt: names no image" in capsys.readouterr().err
    (voc / "Annotations/000005.xml").write_text(VOC_XML.replace("<xmax>30</xmax>", ""))
    assert main([*words, "trainval"]) == 2
    assert "000005.xml: cannot be read as an annotation of Pascal VOC: there is no bndbox/xmax in <object>" in (
        capsys.readouterr().err
    )


def test_cityscapes(tmp_path: Path, capsys) -> None:
    instances = np.full((30, 40), 7, np.uint16)  # road
    instances[5:15, 10:20] = 26_000  # a car
    instances[5:10, 15:20] = 24_001  # a person in front of it
    instances[20:30, :] = 24  # a group of persons
    truth, images = tmp_path / "gtFine/val/ulm", tmp_path / "leftImg8bit/val/ulm"
    for folder in (truth, images):
        folder.mkdir(parents=True)
    cv2.imwrite(str(truth / "ulm_000000_000019_gtFine_instanceIds.png"), instances)
    cv2.imwrite(str(images / "ulm_000000_000019_leftImg8bit.png"), np.zeros((30, 40, 3), np.uint8))
    output = tmp_path / "val.json"
    assert main(["convert-dataset", "cityscapes", str(tmp_path), "--split", "val", "--output", str(output)]) == 0
    dataset = CocoDataset(annotations=str(output), images=str(tmp_path / "leftImg8bit/val"), masks=True)
    assert len(dataset.categories) == 8
    sample = dataset[0]
    assert [dataset.categories[k].name for k in sample.classes] == ["person", "car"]  # the group is a crowd
    assert sample.boxes.tolist() == [[15, 5, 20, 10], [10, 5, 20, 15]]
    ground_truth = dataset.ground_truth()
    assert ground_truth.iscrowd.tolist().count(True) == 1
    assert sorted(ground_truth.areas.tolist()) == [25, 75, 400]
    assert main(["convert-dataset", "cityscapes", str(tmp_path), "--split", "test", "--output", str(output)]) == 2
    assert "holds no city with files *_gtFine_instanceIds.png" in capsys.readouterr().err
