"""The eval path has no Python branch on tensor values: the whole detector can be exported as one graph."""

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from frcnn.modeling.branches import MaskBranch
from frcnn.modeling.poolers import ROIAlign
from frcnn.ops.masks import cut_masks
from frcnn.structures import Batch

MASKS = {
    "mask": partial(
        MaskBranch,
        in_features=("p2", "p3", "p4", "p5"),
        pooler=partial(ROIAlign, resolution=4),
        num_convs=1,
        conv_channels=8,
    )
}


class OnImages(nn.Module):
    """The detector as a function of tensors alone, for images of one size."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, first, second):
        images = [first, second]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        detections = self.detector(Batch(images, sizes, [(2 * h, w) for h, w in sizes], [0, 1])).detections
        fields = ("boxes", "scores", "classes", "index", *sorted(self.detector.detection_fields))
        return [tuple(getattr(d, field) for field in fields) for d in detections]


def train_a_little(detector, batch):
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    for _ in range(12):
        losses = detector(batch).losses
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("loss")).backward()
        optimizer.step()
    return detector.eval()


def with_masks(batch):
    """Every object fills its box."""
    targets = []
    for target, size in zip(batch.targets, batch.image_sizes, strict=True):
        masks = torch.zeros(len(target), *size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, target.boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        targets.append(replace(target, masks=cut_masks(masks)))
    return replace(batch, targets=targets)


@pytest.mark.parametrize(("kind", "branches"), [("standard", {}), ("cascade", {}), ("standard", MASKS)])
def test_the_exported_detector_equals_the_eager_one(tiny_detector, tiny_batch, kind, branches):
    torch.manual_seed(0)
    model = OnImages(train_a_little(tiny_detector(kind, "random", branches), with_masks(tiny_batch)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of torchvision's own export code
        exported = torch.export.export(model, tuple(tiny_batch.images), strict=False).module()
    generator = torch.Generator().manual_seed(9)
    noise = [torch.randint(0, 256, image.shape, generator=generator, dtype=torch.uint8) for image in tiny_batch.images]
    black = [torch.zeros_like(image) for image in tiny_batch.images]
    counts = []
    for images in (tiny_batch.images, black, noise):
        with torch.no_grad():
            expected, found = model(*images), exported(*images)
        counts.append([len(boxes) for boxes, *_ in expected])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert counts[0][0] > 0
    assert counts[1] == [0, 0]  # a graph with no detection in either image ran too
