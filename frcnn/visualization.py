"""`frcnn visualize-data` and `visualize-results`: what training sees, and what a detector found, as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from frcnn.data.roles import Dataset
from frcnn.data.samples import SampleSource
from frcnn.data.stream import Draw
from frcnn.errors import UserError
from frcnn.evaluation.checks import require_distinct_image_ids
from frcnn.evaluation.read_results import load_coco_results
from frcnn.experiment import Experiment
from frcnn.inspect.draw import draw_objects, save_image
from frcnn.inspect.gallery import contact_sheet, enlarged, save_gallery
from frcnn.inspect.objects import annotated_objects


def save_training_samples(experiment: Experiment, folder: Path, num_images: int) -> list[Path]:
    """Writes pictures of training images behind the config's transforms, with their objects.

    Args:
        experiment: whose training set and transforms are shown, drawn as with its seed.
        folder: made where it does not exist.
        num_images: how many, spread evenly over the data set.

    Returns:
        the files written, the contact sheet last.

    Raises:
        UserError: an image cannot be read.
    """
    train = experiment.data.train
    dataset = train.dataset
    source = SampleSource(dataset, train.transforms, experiment.seed, "augmentation", with_targets=True)
    files, thumbnails = [], []
    for index in _spread(len(dataset), num_images):
        sample = source[Draw(index=index, counter=index)]
        if isinstance(sample, UserError):
            raise sample
        image, factor = enlarged(sample.image, None)
        picture = draw_objects(image, annotated_objects(sample, dataset.categories).scaled(factor, factor))
        files.append(folder / f"sample_{index}_image_{sample.image_id}.png")
        save_image(files[-1], picture)
        thumbnails.append(enlarged(picture, 480)[0])
    if thumbnails:
        files.append(folder / "contact_sheet.png")
        save_image(files[-1], contact_sheet(thumbnails))
    return files


def save_results_gallery(
    dataset: Dataset, name: str, results: Path, folder: Path, num_images: int, score_thresh: float
) -> list[Path]:
    """Writes pictures of ground truth beside the detections of a results file.

    Args:
        dataset: that the detections are of.
        name: of the data set, for titles.
        results: COCO result JSON.
        folder: made where it does not exist.
        num_images: how many, spread evenly over the data set.
        score_thresh: detections below this score are not drawn.

    Returns:
        the files written, the contact sheet last.

    Raises:
        UserError: the results cannot be read, or are of another data set, or images of the data set share an id.
    """
    detections = load_coco_results(results, dataset.categories)
    ground_truth = dataset.ground_truth()
    require_distinct_image_ids(ground_truth)
    known = set(ground_truth.image_ids.tolist())
    strange = [image_id for image_id in detections if image_id not in known]
    if strange:
        raise UserError(
            f"{results}: {len(strange)} of {len(detections)} images are not in {name} (the first: image id {strange[0]}); "
            "are these results of another data set?"
        )
    return save_gallery(folder, dataset, detections, title=name, num_images=num_images, score_thresh=score_thresh)


def _spread(length: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int)).tolist()
