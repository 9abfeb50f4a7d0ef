"""Times the two evaluation backends on generated detections and checks that their numbers are equal.

    python benchmarks/evaluators.py --images 5000 --detections 70

The data is like COCO's val2017: 80 classes, about 7 objects an image, objects found several times with noise, and false
detections. pycocotools takes minutes on 5,000 images: `--backends hotcoco` leaves it out.

Measured on two busy CPU cores with 5,000 images and 350,000 detections: hotcoco 0.5 to 1.7 s, pycocotools 103 s.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from frcnn.data.roles import Category, Dataset, GroundTruth
from frcnn.evaluation.coco import CocoEvaluator
from frcnn.structures import Detections


class Generated(Dataset):
    def __init__(self, truth: GroundTruth) -> None:
        self.truth = truth
        self.categories = truth.categories

    def ground_truth(self) -> GroundTruth:
        return self.truth


def generate(num_images: int, detections_per_image: int, num_classes: int) -> tuple[Generated, dict[int, Detections]]:
    rng = np.random.default_rng(0)
    objects = rng.poisson(7.3, num_images)
    image_index = np.repeat(np.arange(num_images), objects)
    total = len(image_index)
    corner, size = rng.uniform(0, 400, (total, 2)), np.exp(rng.uniform(2, 5.3, (total, 2)))
    boxes = np.concatenate([corner, corner + size], axis=1)
    truth = GroundTruth(
        categories=[Category(k, f"class {k}") for k in range(num_classes)],
        image_ids=np.arange(num_images),
        image_sizes=np.full((num_images, 2), 640),
        image_index=image_index,
        classes=rng.integers(0, num_classes, total),
        boxes=boxes,
        areas=size.prod(axis=1) * 0.7,
        iscrowd=rng.random(total) < 0.01,
    )
    starts = np.concatenate([[0], np.cumsum(objects)])
    detections = {}
    for image in range(num_images):
        noise = rng.normal(0, 8, (detections_per_image, 4))
        if objects[image]:
            of = rng.integers(starts[image], starts[image + 1], detections_per_image)
            found, classes = boxes[of] + noise, truth.classes[of].copy()
        else:
            found, classes = np.sort(rng.uniform(0, 600, noise.shape)), np.zeros(len(noise), dtype=np.int64)
        wrong = rng.random(detections_per_image) < 0.5
        classes[wrong] = rng.integers(0, num_classes, wrong.sum())
        scores = np.exp(-np.abs(noise).mean(axis=1) / 8) * rng.uniform(0.2, 1, detections_per_image)
        detections[image] = Detections(
            boxes=torch.from_numpy(found).float(),
            scores=torch.from_numpy(scores).float(),
            classes=torch.from_numpy(classes),
            index=torch.arange(detections_per_image),
        )
    return Generated(truth), detections


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=70, help="an image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--backends", nargs="+", default=["hotcoco", "pycocotools"])
    arguments = parser.parse_args()
    dataset, detections = generate(arguments.images, arguments.detections, arguments.classes)
    total = arguments.images * arguments.detections
    print(f"{arguments.images:,} images, {len(dataset.truth.boxes):,} objects, {total:,} detections")
    results = {}
    for backend in arguments.backends:
        evaluator = CocoEvaluator(dataset, backend=backend)
        started = time.perf_counter()
        results[backend] = evaluator(detections)
        seconds = time.perf_counter() - started
        print(f"{backend:12s} {seconds:8.2f} s   AP {results[backend].metrics['bbox/AP']!r}")
    if len(results) > 1:
        first, *others = results.values()
        print("same numbers to the last digit:", all(other == first for other in others))


if __name__ == "__main__":
    main()
