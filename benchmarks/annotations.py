"""Time and peak memory of reading a COCO-sized annotation file.

    python benchmarks/annotations.py                  # 118,000 images, 860,000 annotations, about 450 MB
    python benchmarks/annotations.py --file instances_train2017.json

The file is read in a process of its own, so that the peak is that of reading and nothing else. The same file is read by
Python's `json` beside it with `--json`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NUM_CATEGORIES = 80


def write_annotations(path: Path, num_images: int, num_annotations: int, seed: int = 0) -> None:
    """A file of the size and form of COCO's: float boxes, polygons of about 40 numbers, 1 % crowds."""
    rng = np.random.default_rng(seed)
    image_index = np.sort(rng.integers(0, num_images, num_annotations))
    corners = rng.uniform(0, (540, 380), (num_annotations, 2))
    sizes = rng.uniform(4, 100, (num_annotations, 2))
    polygons = rng.uniform(0, 400, (1000, 44)).round(2)
    segmentations = [f"[[{', '.join(map(str, polygon))}]]" for polygon in polygons.tolist()]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2017}, "images": [')
        file.write(", ".join(_image(index) for index in range(num_images)))
        file.write('], "annotations": [')
        for index in range(num_annotations):
            box = [*corners[index].round(2).tolist(), *sizes[index].round(2).tolist()]
            file.write(
                f'{", " if index else ""}{{"segmentation": {segmentations[index % 1000]}, '
                f'"area": {box[2] * box[3]:.4f}, "iscrowd": {int(index % 100 == 0)}, '
                f'"image_id": {7 * image_index[index] + 9}, '
                f'"bbox": {box}, "category_id": {index % NUM_CATEGORIES + 1}, "id": {index + 1}}}'
            )
        categories = ", ".join(f'{{"id": {k + 1}, "name": "class {k}"}}' for k in range(NUM_CATEGORIES))
        file.write(f'], "categories": [{categories}]}}')


def _image(index: int) -> str:
    return (
        f'{{"license": 3, "file_name": "{index:012d}.jpg", "coco_url": "http://images/{index:012d}.jpg", '
        f'"height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", "id": {7 * index + 9}}}'
    )


def measure(path: str, parser: str) -> None:
    """Reads the file and prints seconds and the peak of this process."""
    if parser == "frcnn":
        from frcnn.data.annotations import read_annotations

        start = time.perf_counter()
        store = read_annotations(path)
        seconds = time.perf_counter() - start
        images, annotations = len(store), len(store.annotation_ids)
    else:
        import json

        start = time.perf_counter()
        document = json.loads(Path(path).read_bytes())
        seconds = time.perf_counter() - start
        images, annotations = len(document["images"]), len(document["annotations"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{parser:6} {images:,} images, {annotations:,} annotations: {seconds:.2f} s, peak {peak:.2f} GiB", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", help="read this file instead of a generated one")
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--annotations", type=int, default=860_000)
    parser.add_argument("--json", action="store_true", help="also read it with Python's json")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or str(Path(folder) / "instances.json")
        if not options.file:
            write_annotations(Path(path), options.images, options.annotations)
        print(f"{path}: {Path(path).stat().st_size / 1e6:.0f} MB", flush=True)
        for name in ["frcnn", "json"] if options.json else ["frcnn"]:
            subprocess.run([sys.executable, __file__, "--measure", path, name], check=True)


if __name__ == "__main__":
    main()
