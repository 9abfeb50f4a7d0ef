"""Prediction for files: annotated images and one COCO JSON."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from frcnn.data.roles import Category
from frcnn.deploy.predict import Predictor
from frcnn.deploy.prediction import Prediction
from frcnn.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
RESULTS_NAME = "predictions.json"


@dataclass(frozen=True)
class Summary:
    """What became of a set of files.

    Args:
        predicted: how many images went through.
        objects: class name -> how many were found.
        failures: one line for each image that could not be read.
        results: the COCO JSON.
        seconds: of reading, predicting and writing.
    """

    predicted: int
    objects: Counter[str]
    failures: Sequence[str]
    results: Path
    seconds: float

    def __str__(self) -> str:
        rate = self.predicted / self.seconds if self.seconds > 0 else 0.0
        text = f"{self.predicted} images in {self.seconds:.1f} s ({rate:.1f} images/s): {_counted(self.objects)}"
        return "\n".join([f"{text}; {self.results}", *(f"not read: {failure}" for failure in self.failures)])


def find_images(source: Path, output: Path) -> list[Path]:
    """The image itself, or every image below a folder in sorted order; without those below the output folder.

    Raises:
        UserError: there is no such file, no image below the folder, or an output folder that would overwrite the images.
    """
    if output.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise UserError(f"{output}: annotated images would overwrite the images; choose another folder with --output")
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{source}: there is no such image file or folder")
    images = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.is_file())
    images = [path for path in images if not path.resolve().is_relative_to(output.resolve())]
    if not images:
        raise UserError(f"{source}: there is no image in this folder (looked for {', '.join(IMAGE_ENDINGS)})")
    return images


def predict_files(
    predictor: Predictor, source: Path, output: Path, *, score_thresh: float = 0.5, say: Callable[[str], object] = print
) -> Summary:
    """Predicts an image or a folder; one that cannot be read does not stop the others.

    Args:
        predictor: the detector.
        source: an image or a folder.
        output: folder for the annotated images, under the names they have in `source`, and `predictions.json`.
        score_thresh: objects with a lower score are left out of both, in 0..1.
        say: is given one line for each image.

    Returns:
        What was found, and the images that could not be read.

    Raises:
        UserError: nothing to predict, an output folder that would overwrite the images, or one that cannot be written.
    """
    root = source if source.is_dir() else source.parent
    paths = find_images(source, output)
    started = time.perf_counter()
    document = CocoDocument(predictor.categories)
    objects: Counter[str] = Counter()
    failures = []
    for path in paths:
        name = path.relative_to(root)
        try:
            prediction = predictor(path).above(score_thresh)
        except UserError as error:
            failures.append(str(error))
            continue
        prediction.save(output / name)
        document.add(name.as_posix(), prediction)
        found = Counter(prediction.class_names)
        objects += found
        say(f"{name}: {_counted(found)}")
    document.write(output / RESULTS_NAME)
    return Summary(len(document.images), objects, failures, output / RESULTS_NAME, time.perf_counter() - started)


class CocoDocument:
    """A COCO data set of predicted objects, each with its score, which COCO viewers open.

    Args:
        categories: of the training data.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = [_as_coco(category) for category in categories]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, file_name: str, prediction: Prediction) -> None:
        """Adds an image and its objects under the next ids, from 1 on."""
        height, width = prediction.image.shape[:2]
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for result in prediction.to_coco(image_id):
            number = len(self.annotations) + 1
            self.annotations.append({"id": number, **result, "area": _area(result), "iscrowd": 0})

    def write(self, path: Path) -> None:
        """Writes the JSON.

        Raises:
            UserError: the file cannot be written.
        """
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _as_coco(category: Category) -> dict[str, Any]:
    plain: dict[str, Any] = {"id": category.id, "name": category.name}
    if category.keypoints:
        # a skeleton counts keypoints from 1 in COCO's files
        skeleton = [[start + 1, end + 1] for start, end in category.skeleton]
        plain |= {"keypoints": list(category.keypoints), "skeleton": skeleton}
    return plain


def _area(result: Mapping[str, Any]) -> float:
    """In square pixels, of the mask where there is one, else of the box."""
    if "segmentation" in result:
        return float(coco_mask.area(result["segmentation"]))
    return round(result["bbox"][2] * result["bbox"][3], 2)


def _counted(objects: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in objects.most_common()) or "no objects"
