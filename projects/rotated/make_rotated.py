"""Draws a data set of rotated rectangles and ellipses on noise: COCO JSON whose boxes are cx cy w h angle.

python projects/rotated/make_rotated.py --output datasets/rotated
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import msgspec
import numpy as np

CLASSES = ("bar", "ellipse")
MAX_OBJECTS = 4
MAX_COVERED = 0.1
ATTEMPTS = 30
SUBPIXELS = 4
CONTRAST = 70


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="datasets/rotated", help="the folder (default: %(default)s)")
    parser.add_argument("--num-train", type=int, default=400, help="training images (default: %(default)s)")
    parser.add_argument("--num-test", type=int, default=100, help="test images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other images (default: %(default)s)")
    args = parser.parse_args()
    for split, (name, count) in enumerate((("train", args.num_train), ("test", args.num_test))):
        write_split(Path(args.output), name, count, 128, (args.seed, split))
    print(f"{args.output}: {args.num_train} training and {args.num_test} test images")


def write_split(folder: Path, name: str, count: int, size: int, seed: tuple[int, ...]) -> None:
    """Writes `name`.json and its images.

    Args:
        folder: where to; made if it is not there.
        name: of the split.
        count: how many images.
        size: height and width of an image, in pixels.
        seed: of everything that is drawn; each image has its own.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for image_id in range(1, count + 1):
        image, boxes, classes = draw_image(size, np.random.default_rng((*seed, image_id)))
        file_name = f"{name}_{image_id:05d}.png"
        cv2.imwrite(str(folder / "images" / file_name), image)
        images.append({"id": image_id, "file_name": file_name, "height": size, "width": size})
        for box, k in zip(boxes, classes, strict=True):
            box = [round(value, 2) for value in box]
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": k + 1, "bbox": box}
            annotations.append(annotation | {"area": round(box[2] * box[3], 2), "iscrowd": 0})
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(document))


def draw_image(size: int, rng: np.random.Generator) -> tuple[np.ndarray, list[list[float]], list[int]]:
    """An image [size, size, 3] uint8, its boxes and their classes; objects hardly cover each other."""
    color = rng.uniform(60, 190, 3)
    noise = cv2.resize(rng.normal(0, 25, (16, 16, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    image = color + noise + rng.normal(0, 8, (size, size, 3))
    covered = np.zeros((size, size), bool)
    boxes: list[list[float]] = []
    classes: list[int] = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        for _ in range(ATTEMPTS):
            w, k = rng.uniform(24, 72), int(rng.integers(len(CLASSES)))
            box = [*rng.uniform(20, size - 20, 2).tolist(), w, w * rng.uniform(0.25, 0.6), rng.uniform(-90, 90)]
            coverage = cover(size, box, CLASSES[k])  # [size, size]
            if (coverage * covered).sum() <= MAX_COVERED * coverage.sum():
                break
        else:
            continue
        away = color + rng.choice([-1, 1], 3) * rng.uniform(CONTRAST, 120, 3)
        image += coverage[..., None] * (away - image)
        covered |= coverage > 0
        boxes.append(box)
        classes.append(k)
    return image.clip(0, 255).round().astype(np.uint8), boxes, classes


def cover(size: int, box: list[float], shape: str) -> np.ndarray:
    """[size, size] in 0..1: the part of each pixel that the object covers, by sub-pixels."""
    x, y, w, h, degrees = box
    y_grid, x_grid = (np.mgrid[: size * SUBPIXELS, : size * SUBPIXELS] + 0.5) / SUBPIXELS
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    u = ((x_grid - x) * cos - (y_grid - y) * sin) / (w / 2)  # along w, in -1..1 inside
    v = ((x_grid - x) * sin + (y_grid - y) * cos) / (h / 2)
    inside = (abs(u) <= 1) & (abs(v) <= 1) if shape == "bar" else u**2 + v**2 <= 1
    return inside.reshape(size, SUBPIXELS, size, SUBPIXELS).mean(axis=(1, 3))


if __name__ == "__main__":
    main()
