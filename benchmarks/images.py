"""Images a second on one core: decode, resize to 800, pack; of JPEG files or of generated ones of COCO's size.

python benchmarks/images.py                              # 640 x 480, about 160 KB each
python benchmarks/images.py --images datasets/bccd/images
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from frcnn.data.collate import pack
from frcnn.data.images import read_image
from frcnn.data.roles import Sample
from frcnn.data.transforms import ResizeShortestEdge


def write_images(folder: Path, count: int) -> None:
    """Smooth noise with grain, which JPEG makes about as large as a photograph."""
    rng = np.random.default_rng(0)
    for index in range(count):
        blotches = cv2.resize(
            rng.uniform(0, 255, (40, 60, 3)).astype(np.float32), (640, 480), interpolation=cv2.INTER_CUBIC
        )
        image = (blotches + rng.normal(0, 12, blotches.shape)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])


def measure(paths: list[Path], rounds: int) -> None:
    """Prints milliseconds of each step and images a second of all of them."""
    cv2.setNumThreads(0)
    resize = ResizeShortestEdge(sizes=[800])
    rng = np.random.default_rng(0)
    seconds = np.zeros(3)
    for path in paths * rounds:
        times = [time.process_time()]
        image = read_image(str(path))
        times.append(time.process_time())
        sample = Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 0, image.shape[:2])
        sample = resize(sample, rng, lambda n: [])
        times.append(time.process_time())
        pack([sample], with_targets=True)
        times.append(time.process_time())
        seconds += np.diff(times)
    number = len(paths) * rounds
    size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    steps = ", ".join(
        f"{name} {1000 * s / number:.2f} ms" for name, s in zip(("decode", "resize", "pack"), seconds, strict=True)
    )
    print(f"{len(paths)} files of {size:.0f} KB: {steps}; {number / seconds.sum():.0f} images/s a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files; without it, files are generated")
    parser.add_argument("--rounds", type=int, default=3, help="how many times each file is read (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.images is None:
            write_images(Path(folder), 50)
        measure(sorted((options.images or Path(folder)).glob("*.jpg")), options.rounds)


if __name__ == "__main__":
    main()
