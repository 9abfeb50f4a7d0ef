"""How much detections change when the camera moves by a pixel or a few: the same scene, cut out a little further on.

python projects/blurpool_resnet/measure_shift.py --weights runs/quickstart/best.pth runs/shapes_blurpool/best.pth \\
    --images datasets/shapes/images/test_*.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import frcnn
from frcnn.data.images import read_image
from frcnn.deploy.predict import Predictor
from frcnn.deploy.prediction import Prediction
from frcnn.ops.boxes import box_iou

MOST = 7
"""The largest move in pixels, along both sides."""


def changes(predictor: Predictor, image: np.ndarray, score_thresh: float) -> list[tuple[float, float]]:
    """What becomes of each detection when the image moves by 1 to 7 pixels.

    Args:
        predictor: the detector.
        image: [h, w, 3] uint8.
        score_thresh: detections that score less in the image at rest are not followed, nor are those near its border.

    Returns:
        for every detection and move, the change of its score and the IoU with its box at rest; 0 if it is lost.
    """
    height, width = image.shape[0] - MOST, image.shape[1] - MOST
    views: list[Any] = [
        np.ascontiguousarray(image[move : height + move, move : width + move]) for move in range(MOST + 1)
    ]
    seen = predictor(views)
    rest = seen[0]
    boxes = torch.from_numpy(rest.boxes)  # [D, 4]
    inside = (boxes[:, :2] > MOST + 1).all(1) & (boxes[:, 2:] < boxes.new_tensor([width, height]) - MOST - 1).all(1)
    followed = np.flatnonzero(inside.numpy() & (rest.scores >= score_thresh))
    found = []
    for move, view in enumerate(seen[1:], start=1):
        iou = box_iou(boxes, torch.from_numpy(view.boxes) + move).numpy()  # [D, D']
        found += [follow(rest, view, iou, int(number)) for number in followed]
    return found


def follow(rest: Prediction, view: Prediction, iou: np.ndarray, number: int) -> tuple[float, float]:
    """The change of score and the IoU of one detection with the one of its class that is most like it in another view."""
    same = np.flatnonzero((view.classes == rest.classes[number]) & (iou[number] >= 0.5))
    if not len(same):
        return float(rest.scores[number]), 0.0
    best = same[iou[number, same].argmax()]
    return abs(float(rest.scores[number] - view.scores[best])), float(iou[number, best])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, nargs="+", metavar="FILE")
    parser.add_argument("--weights", required=True, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--score-thresh", type=float, default=0.5, help="(default: %(default)s)")
    args = parser.parse_args()
    for weights in args.weights:
        predictor = frcnn.load(weights, device="cpu", imports=[Path(__file__).with_name("blurpool_resnet.py")])
        found = [change for file in args.images for change in changes(predictor, read_image(file), args.score_thresh)]
        score, iou = np.mean(found, axis=0)
        lost = np.mean([iou == 0 for _, iou in found])
        print(
            f"{weights}: {len(found)} detections moved by 1 to {MOST} px: "
            f"score changes by {score:.4f}, IoU with the box at rest {iou:.4f}, lost {lost:.2%}"
        )


if __name__ == "__main__":
    main()
