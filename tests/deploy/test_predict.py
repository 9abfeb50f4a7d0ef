"""The predictor with a detector that a reader can follow: it finds the box around all bright pixels."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from frcnn.data.roles import Category, Sample, Transform
from frcnn.data.transforms import ResizeShortestEdge
from frcnn.deploy.predict import Predictor, as_rgb
from frcnn.deploy.predict_files import predict_files
from frcnn.errors import UserError
from frcnn.modeling.roles import Detector
from frcnn.structures import Batch, Detections, Output

CATEGORIES = [Category(3, "spot"), Category(7, "shadow")]


class BrightSpot(Detector):
    """Finds the pixels above 128 (class 0, score 0.9) and the whole image (class 1, score 0.2)."""

    def forward(self, batch: Batch) -> Output:
        assert not self.training
        found = []
        for image, (h, w), (original_h, original_w) in zip(
            batch.images, batch.image_sizes, batch.original_sizes, strict=True
        ):
            assert image.dtype == torch.uint8
            y, x = torch.nonzero(image[0] > 128, as_tuple=True)
            spot = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]) if len(x) else torch.zeros(4)
            boxes = torch.stack([spot.float(), torch.tensor([0.0, 0.0, w, h])])
            boxes = boxes * torch.tensor([original_w / w, original_h / h] * 2)
            keep = torch.tensor([len(x) > 0, True])
            scores = torch.tensor([0.9, 0.2])
            found.append(Detections(boxes[keep], scores[keep], torch.arange(2)[keep], torch.arange(2)[keep]))
        return Output(found, {})


def spot_image(height: int = 40, width: int = 60) -> np.ndarray:
    """Black with a white square from (10, 20) to (20, 30)."""
    image = np.zeros((height, width, 3), np.uint8)
    image[20:30, 10:20] = 255
    return image


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(BrightSpot(2), [ResizeShortestEdge(sizes=[80], max_size=1000)], CATEGORIES)


def test_boxes_are_in_pixels_of_the_image_that_was_given(predictor: Predictor) -> None:
    found = predictor(spot_image())
    assert len(found) == 2
    np.testing.assert_allclose(found.boxes, [[10, 20, 20, 30], [0, 0, 60, 40]], atol=0.51)
    assert found.class_names == ["spot", "shadow"]
    assert found.scores.tolist() == pytest.approx([0.9, 0.2])


def test_a_list_gives_a_list_and_sizes_may_differ(predictor: Predictor) -> None:
    first, second = predictor([spot_image(), spot_image(90, 30)])
    assert first.boxes[1].tolist() == [0, 0, 60, 40]
    assert second.boxes[1].tolist() == [0, 0, 30, 90]
    assert predictor([]) == []


def test_an_image_with_nothing_in_it_is_normal() -> None:
    found = Predictor(BrightSpot(2), [], CATEGORIES)(np.zeros((8, 8, 3), np.uint8)).above(0.5)
    assert len(found) == 0
    assert found.to_coco() == []
    assert found.draw().shape == (8, 8, 3)


def test_path_array_and_pil_image_are_the_same(predictor: Predictor, tmp_path: Path) -> None:
    image = spot_image()
    image[..., 1] = 0
    cv2.imwrite(str(tmp_path / "spot.png"), image[..., ::-1])
    pil = Image.open(tmp_path / "spot.png")
    for given in (tmp_path / "spot.png", str(tmp_path / "spot.png"), pil, pil.convert("RGBA")):
        np.testing.assert_array_equal(as_rgb(given), image)
        np.testing.assert_array_equal(predictor(given).boxes, predictor(image).boxes)


def test_the_exif_orientation_of_a_pil_image_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.fromarray(spot_image(40, 60)).save(tmp_path / "turned.jpg", exif=exif)
    assert as_rgb(Image.open(tmp_path / "turned.jpg")).shape == (60, 40, 3)
    assert as_rgb(tmp_path / "turned.jpg").shape == (60, 40, 3)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8)])
def test_an_array_of_another_form_says_what_is_expected(predictor: Predictor, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected an array \[h, w, 3\] of uint8 RGB, got"):
        predictor(image)


def test_what_is_no_image_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="got int"):
        predictor(3)
    with pytest.raises(UserError, match="there is no such image file"):
        predictor(tmp_path / "absent.jpg")
    with pytest.raises(UserError, match="a folder, not an image"):
        predictor(tmp_path)


def test_a_transform_that_mixes_images_is_refused() -> None:
    class Mix(Transform):
        def __call__(self, sample: Sample, rng, others) -> Sample:
            return others(1)[0]

    with pytest.raises(UserError, match="mixes images"):
        Predictor(BrightSpot(2), [Mix()], CATEGORIES)(spot_image())


def test_coco_results_have_the_category_ids_of_the_training_data() -> None:
    results = Predictor(BrightSpot(2), [], CATEGORIES)(spot_image()).to_coco(image_id=5)
    assert results[0] == {"image_id": 5, "category_id": 3, "bbox": [10.0, 20.0, 10.0, 10.0], "score": 0.9}
    assert results[1]["category_id"] == 7


def test_a_picture_of_the_detections_is_written(predictor: Predictor, tmp_path: Path) -> None:
    found = predictor(spot_image())
    found.save(tmp_path / "new" / "drawn.png")
    assert (as_rgb(tmp_path / "new" / "drawn.png") == found.draw()).all()
    assert (found.image == spot_image()).all()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the annotated image cannot be written"):
        found.save(tmp_path / "file" / "drawn.png")


def test_a_folder_is_predicted_and_a_bad_image_does_not_stop_the_others(tmp_path: Path) -> None:
    source, output, said = tmp_path / "images", tmp_path / "out", []
    (source / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg", "z.PNG"):
        cv2.imwrite(str(source / name), spot_image())
    (source / "broken.jpg").write_bytes(b"no image")
    (source / "notes.txt").write_text("not to be read")
    summary = predict_files(Predictor(BrightSpot(2), [], CATEGORIES), source, output, say=said.append)
    assert said == ["a.png: 1 spot", "deep/b.jpg: 1 spot", "z.PNG: 1 spot"]
    assert summary.predicted == 3
    assert "broken.jpg" in summary.failures[0]
    assert "\nnot read: " in str(summary)
    assert sorted(path.name for path in output.rglob("*.*")) == ["a.png", "b.jpg", "predictions.json", "z.PNG"]
    document = json.loads((output / "predictions.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a.png", "deep/b.jpg", "z.PNG"]
    assert document["categories"] == [{"id": 3, "name": "spot"}, {"id": 7, "name": "shadow"}]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in document["annotations"]] == [
        (1, 1, 3),
        (2, 2, 3),
        (3, 3, 3),
    ]
    assert document["annotations"][0]["area"] == 100


def test_the_score_threshold_holds_for_picture_and_json(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), spot_image())
    summary = predict_files(
        Predictor(BrightSpot(2), [], CATEGORIES),
        tmp_path / "a.png",
        tmp_path / "out",
        score_thresh=0.1,
        say=lambda _: None,
    )
    assert summary.objects == {"spot": 1, "shadow": 1}


def test_an_output_folder_inside_the_images_is_not_predicted_again(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), spot_image())
    predictor = Predictor(BrightSpot(2), [], CATEGORIES)
    for _ in range(2):
        assert predict_files(predictor, tmp_path, tmp_path / "out", say=lambda _: None).predicted == 1


def test_images_are_never_overwritten(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), spot_image())
    predictor = Predictor(BrightSpot(2), [], CATEGORIES)
    with pytest.raises(UserError, match="would overwrite the images"):
        predict_files(predictor, tmp_path / "a.png", tmp_path)
    with pytest.raises(UserError, match="there is no such image file or folder"):
        predict_files(predictor, tmp_path / "absent", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no image in this folder"):
        predict_files(predictor, tmp_path / "empty", tmp_path / "out")
