"""A synthetic detection data set: circles, squares and triangles on textured backgrounds, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from frcnn.data.images import opencv
from frcnn.data.keypoints import PIXEL_CENTER

SHAPES = ("circle", "square", "triangle")
CIRCLE_POINTS = 64
KEYPOINTS = ("top", "left_top", "right_top", "left_bottom", "right_bottom")
CORNERS = {  # names of the corners in the order in which they are drawn
    "circle": (),
    "square": ("right_top", "right_bottom", "left_bottom", "left_top"),
    "triangle": ("top", "right_bottom", "left_bottom"),
}
HIDDEN, SEEN = 1, 2
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
    eighth to a half of the image; each is of one clear colour and its box fits it exactly. Its segmentation is its whole
    outline, also where another object covers it, as its box is; the keypoints of squares and triangles are their corners,
    hidden where another object covers them.

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
        image, boxes, classes, outlines = draw_image(image_size, np.random.default_rng((seed, split, image_id)))
        file_name = f"{name}_{image_id:06d}.jpg"
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "images" / file_name), bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        images.append({"id": image_id, "file_name": file_name, "width": image_size, "height": image_size})
        for i, ((x1, y1, x2, y2), class_) in enumerate(zip(boxes.round(2).tolist(), classes.tolist(), strict=True)):
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": class_ + 1, "bbox": box}
            annotation |= {"area": round(box[2] * box[3], 2), "iscrowd": 0}
            annotation["segmentation"] = [outlines[i].round(2).ravel().tolist()]
            annotations.append(annotation | _corner_keypoints(SHAPES[class_], outlines[i], outlines[i + 1 :]))
    return {
        "info": {"description": f"synthetic shapes, {name}, seed {seed}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": class_ + 1, "name": shape, **_skeleton(shape)} for class_, shape in enumerate(SHAPES)],
    }


def _skeleton(shape: str) -> dict[str, Any]:
    """The keypoints of a category, and its outline as pairs of keypoints, counted from 1."""
    place = [KEYPOINTS.index(name) + 1 for name in CORNERS[shape]]
    if not place:
        return {}
    return {"keypoints": KEYPOINTS, "skeleton": list(zip(place, [*place[1:], place[0]], strict=True))}


def _corner_keypoints(shape: str, outline: np.ndarray, later: Sequence[np.ndarray]) -> dict[str, Any]:
    """The corners of a shape as keypoints of an annotation: x and y count pixels, whose centres are at 0, 1, 2, ...

    Args:
        shape: its name.
        outline: [n, 2] its points.
        later: the outlines of the objects that were painted after it.
    """
    if not CORNERS[shape]:
        return {}
    keypoints = np.zeros((len(KEYPOINTS), 3))
    for name, point in zip(CORNERS[shape], outline, strict=True):
        covered = any(
            opencv().pointPolygonTest(other.astype(np.float32), point.tolist(), measureDist=False) > 0
            for other in later
        )
        x, y = (point - PIXEL_CENTER).round(2)
        keypoints[KEYPOINTS.index(name)] = x, y, HIDDEN if covered else SEEN
    return {"keypoints": keypoints.ravel().tolist(), "num_keypoints": len(outline)}


class Drawing(NamedTuple):
    """An image and its objects in the order in which they were painted.

    Args:
        image: [size, size, 3] uint8 RGB.
        boxes: [G, 4] float64 x1 y1 x2 y2.
        classes: [G] int64.
        outlines: G x [n, 2] float64, the points of each object's outline.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    outlines: list[np.ndarray]


def draw_image(size: int, rng: np.random.Generator) -> Drawing:
    """One image and its objects.

    Args:
        size: height and width in pixels.
        rng: the source of everything random.
    """
    image = _background(size, rng)
    mean = image.mean(axis=(0, 1))
    empty = rng.random() < EMPTY_IMAGES
    boxes = _place_boxes(size, 0 if empty else int(rng.integers(1, MAX_OBJECTS + 1)), rng)
    classes = rng.integers(len(SHAPES), size=len(boxes))
    outlines = [
        _draw_shape(image, SHAPES[c], box, _color(mean, rng), rng) for c, box in zip(classes, boxes, strict=True)
    ]
    tight = np.array([(*points.min(axis=0), *points.max(axis=0)) for points in outlines], np.float64).reshape(-1, 4)
    return Drawing(image.round().astype(np.uint8), tight, classes, outlines)


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
) -> np.ndarray:
    """Paints a shape into a square and returns the points of its outline, [n, 2], which reach as far as it does."""
    left, top, right, bottom = square
    x0, y0 = int(left), int(top)
    x1, y1 = min(int(np.ceil(right)), image.shape[1]), min(int(np.ceil(bottom)), image.shape[0])
    # Coverage by counting the sub-pixels whose centres lie inside: anti-aliased, and exact in continuous coordinates.
    x = x0 + (np.arange((x1 - x0) * SUBPIXELS) + 0.5) / SUBPIXELS
    y = (y0 + (np.arange((y1 - y0) * SUBPIXELS) + 0.5) / SUBPIXELS)[:, None]
    center, radius = (square[:2] + square[2:]) / 2, (right - left) / 2
    if shape == "circle":
        inside = (x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2
        angles = np.arange(CIRCLE_POINTS) * (2 * np.pi / CIRCLE_POINTS)
        corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # [n, 2]
        corners = corners.clip(square[:2], square[2:])
    else:
        corners = center + radius * _polygon(3 if shape == "triangle" else 4, rng)  # [n, 2]
        inside = np.ones((y.size, x.size), bool)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
    coverage = inside.reshape(y1 - y0, SUBPIXELS, x1 - x0, SUBPIXELS).mean(axis=(1, 3))[..., None]
    image[y0:y1, x0:x1] += coverage * (color - image[y0:y1, x0:x1])
    return corners


def _polygon(corners: int, rng: np.random.Generator) -> np.ndarray:
    """[n, 2]: a regular polygon turned by a small random angle, whose longer side of its box reaches from -1 to 1."""
    angle = -np.pi / 2 + (np.pi / 4 if corners == 4 else 0) + rng.uniform(-0.3, 0.3)
    angles = angle + np.arange(corners) * 2 * np.pi / corners
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    return (2 * points - low - high) / (high - low).max()
