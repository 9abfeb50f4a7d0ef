"""A synthetic detection data set: circles, squares and triangles on textured backgrounds, drawn from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from frcnn.data.images import opencv

SHAPES = ("circle", "square", "triangle")
SUBPIXELS = 4
JPEG_QUALITY = 95
MIN_IMAGE_SIZE = 32
EMPTY_IMAGES = 0.03
MAX_OBJECTS = 5
MAX_IOU = 0.3
MIN_SIZE, MAX_SIZE = 1 / 8, 1 / 2
MIN_CONTRAST = 90
ATTEMPTS = 30
SPLITS = ("train", "test")


def make_shapes(folder: str | Path, *, num_train: int, num_test: int, image_size: int = 128, seed: int = 0) -> None:
    """Writes train.json, test.json and images/ in COCO's form. The same arguments give the same files.

    One image in about 33 has no object, the others 1 to 5, which overlap by at most an IoU of 0.3. Objects measure an
    eighth to a half of the image; each is of one clear colour and its box fits it exactly.

    Args:
        folder: where to; made if it is not there.
        num_train: images in train.json.
        num_test: images in test.json.
        image_size: height and width of an image, in pixels.
        seed: of everything that is drawn.

    Raises:
        ValueError: an image would be too small for its objects.
    """
    if image_size < MIN_IMAGE_SIZE:
        raise ValueError(f"image_size must be at least {MIN_IMAGE_SIZE} pixels, got {image_size}")
    (Path(folder) / "images").mkdir(parents=True, exist_ok=True)
    for split, (name, count) in enumerate(zip(SPLITS, (num_train, num_test), strict=True)):
        document = _write_split(Path(folder), split, name, count, image_size, seed)
        # The list of the images comes last, so that a run that was cut off leaves none that names missing files.
        (Path(folder) / f"{name}.json").write_bytes(msgspec.json.encode(document))


def _write_split(folder: Path, split: int, name: str, count: int, image_size: int, seed: int) -> dict[str, Any]:
    cv2 = opencv()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        image, boxes, classes = draw_image(image_size, np.random.default_rng((seed, split, image_id)))
        file_name = f"{name}_{image_id:06d}.jpg"
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "images" / file_name), bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        images.append({"id": image_id, "file_name": file_name, "width": image_size, "height": image_size})
        for (x1, y1, x2, y2), class_ in zip(boxes.round(2).tolist(), classes.tolist(), strict=True):
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": class_ + 1, "bbox": box}
            annotations.append({**annotation, "area": round(box[2] * box[3], 2), "iscrowd": 0})
    return {
        "info": {"description": f"synthetic shapes, {name}, seed {seed}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": class_ + 1, "name": shape} for class_, shape in enumerate(SHAPES)],
    }


def draw_image(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image and its objects.

    Args:
        size: height and width in pixels.
        rng: the source of everything random.

    Returns:
        image [size, size, 3] uint8 RGB, boxes [G, 4] float64 x1 y1 x2 y2, classes [G] int64.
    """
    image = _background(size, rng)
    mean = image.mean(axis=(0, 1))
    empty = rng.random() < EMPTY_IMAGES
    boxes = _place_boxes(size, 0 if empty else int(rng.integers(1, MAX_OBJECTS + 1)), rng)
    classes = rng.integers(len(SHAPES), size=len(boxes))
    tight = [_draw_shape(image, SHAPES[c], box, _color(mean, rng), rng) for c, box in zip(classes, boxes, strict=True)]
    return image.round().astype(np.uint8), np.array(tight, np.float64).reshape(-1, 4), classes


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """[size, size, 3] float32: a dull colour with blotches of several sizes, stripes and grain."""
    cv2 = opencv()
    image = np.full((size, size, 3), rng.uniform(70, 180, 3), np.float32)
    for cells in (3, 8, 24):
        blotches = rng.normal(0, 14, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(blotches, (size, size), interpolation=cv2.INTER_CUBIC)
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(4, 20)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / wavelength)) * rng.uniform(0, 12)
    return (image + stripes[..., None] + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.float32)


def _place_boxes(size: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Up to `count` squares inside the image, the largest first so that no small one is hidden behind it."""
    boxes: list[np.ndarray] = []
    for side in np.sort(rng.uniform(MIN_SIZE * size, MAX_SIZE * size, count))[::-1]:
        for _ in range(ATTEMPTS):
            x, y = rng.uniform(0, size - side, 2)
            box = np.array([x, y, x + side, y + side])
            if all(_overlap(box, other) <= MAX_IOU for other in boxes):
                boxes.append(box)
                break
    return boxes


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over the smaller area: at least the IoU, and keeps a small shape off a large one's middle."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    smaller = min((box[2] - box[0]) ** 2, (other[2] - other[0]) ** 2)
    return float(sides.clip(0).prod() / smaller)


def _color(background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour far from the background's mean."""
    while True:
        color = rng.uniform(0, 255, 3)
        if np.abs(color - background).max() > MIN_CONTRAST:
            return color


def _draw_shape(
    image: np.ndarray, shape: str, square: np.ndarray, color: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Paints a shape into a square and returns the box that fits it exactly."""
    left, top, right, bottom = square
    x0, y0 = int(left), int(top)
    x1, y1 = min(int(np.ceil(right)), image.shape[1]), min(int(np.ceil(bottom)), image.shape[0])
    # Coverage by counting the sub-pixels whose centres lie inside: anti-aliased, and exact in continuous coordinates.
    x = x0 + (np.arange((x1 - x0) * SUBPIXELS) + 0.5) / SUBPIXELS
    y = (y0 + (np.arange((y1 - y0) * SUBPIXELS) + 0.5) / SUBPIXELS)[:, None]
    center, radius = (square[:2] + square[2:]) / 2, (right - left) / 2
    if shape == "circle":
        inside = (x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2
        box = left, top, right, bottom
    else:
        corners = center + radius * _polygon(3 if shape == "triangle" else 4, rng)  # [n, 2]
        inside = np.ones((y.size, x.size), bool)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
        box = *corners.min(axis=0), *corners.max(axis=0)
    coverage = inside.reshape(y1 - y0, SUBPIXELS, x1 - x0, SUBPIXELS).mean(axis=(1, 3))[..., None]
    image[y0:y1, x0:x1] += coverage * (color - image[y0:y1, x0:x1])
    return box


def _polygon(corners: int, rng: np.random.Generator) -> np.ndarray:
    """[n, 2]: a regular polygon turned by a small random angle, whose longer side of its box reaches from -1 to 1."""
    angle = -np.pi / 2 + (np.pi / 4 if corners == 4 else 0) + rng.uniform(-0.3, 0.3)
    angles = angle + np.arange(corners) * 2 * np.pi / corners
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    return (2 * points - low - high) / (high - low).max()
