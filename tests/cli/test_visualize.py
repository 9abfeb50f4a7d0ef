"""Pictures of data and of results, from the command line."""

import json

import cv2
import pytest

from frcnn.cli.main import main
from frcnn.data.roles import Category
from frcnn.errors import UserError
from frcnn.evaluation.read_results import load_coco_results

CATEGORIES = [Category(3, "spot"), Category(7, "shadow")]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    assert main(["make-shapes", "--output", str(folder / "shapes"), "--num-train", "6", "--num-test", "3"]) == 0
    return folder


def test_training_images_as_the_network_sees_them(datasets, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FRCNN_DATASETS", str(datasets))
    words = [
        "visualize-data",
        "--config-file",
        "configs/quickstart.yaml",
        "--output",
        str(tmp_path),
        "--num-images",
        "4",
    ]
    assert main([*words, "data.train.dataset.masks=true"]) == 0
    assert "4 training images" in capsys.readouterr().out
    pictures = sorted(tmp_path.glob("sample_*.png"))
    assert len(pictures) == 4
    assert cv2.imread(str(pictures[0])).shape == (384, 384, 3)  # 128 pixels, enlarged so that labels can be read
    assert (tmp_path / "contact_sheet.png").exists()


def test_results_beside_the_ground_truth(datasets, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FRCNN_DATASETS", str(datasets))
    truth = json.loads((datasets / "shapes" / "test.json").read_text())
    rows = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in truth["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    words = [
        "visualize-results",
        "--config-file",
        "configs/quickstart.yaml",
        "--results",
        str(tmp_path / "results.json"),
    ]
    assert main([*words, "--output", str(tmp_path / "pictures")]) == 0
    assert "3 images of val" in capsys.readouterr().out
    assert len(list((tmp_path / "pictures").glob("image_*.png"))) == 3
    assert main([*words, "--test-set", "nothing"]) == 2
    assert "has no test set 'nothing'; there are: val" in capsys.readouterr().err


def test_results_are_read_best_first(tmp_path):
    rows = [
        {"image_id": 5, "category_id": 3, "score": 0.2, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 0.5]},
        {"image_id": 5, "category_id": 7, "score": 0.8, "bbox": [0, 0, 10, 10], "keypoints": [3, 4, 0.9]},
        {"image_id": 6, "category_id": 7, "score": 0.5, "segmentation": {"size": [4, 4], "counts": "52203"}},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    found = load_coco_results(path, CATEGORIES)
    assert found[5].boxes.tolist() == [[0, 0, 10, 10], [1, 2, 4, 6]]
    assert found[5].classes.tolist() == [1, 0]
    assert found[5].keypoints[:, 0, :2].tolist() == [[3.5, 4.5], [1.5, 2.5]]
    assert len(found[6].encoded_masks) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": []}', "these are no results in COCO's form: Expected `array`, got `object`"),
        (
            '[{"image_id": 1, "category_id": 4, "score": 1, "bbox": [0, 0, 1, 1]}]',
            "category_id 4 is none of the data set's",
        ),
        ('[{"image_id": 1, "category_id": 3, "score": 1}]', "image 1 has neither bbox nor segmentation"),
        ('[{"image_id": 1, "category_id": 3, "score": "x"}]', r"Expected `float`, got `str` - at `\$\[0\].score`"),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_coco_results(path, CATEGORIES)
    with pytest.raises(UserError, match="there is no such file of results"):
        load_coco_results(tmp_path / "no.json", CATEGORIES)
