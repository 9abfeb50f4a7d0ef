"""How many parameters detectron2's models have, counted without making any."""

import parity_models
import pytest
import torch

from frcnn.modeling.backbones import ResNeXt


def count(model, *, learning=False):
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not learning)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (parity_models.detectron2_fpn, 41_699_936),
        (lambda num_classes: parity_models.detectron2_fpn(num_classes, depth=101), 60_639_840),
        (lambda num_classes: parity_models.detectron2_fpn(num_classes, backbone=ResNeXt(depth=101)), 104_784_480),
        (parity_models.detectron2_c4, 33_791_644),
        (parity_models.detectron2_dc5, 165_581_468),
        (parity_models.detectron2_mask_fpn, 44_343_216),
        (parity_models.detectron2_cascade_mask, 71_984_926),
    ],
    ids=["R50-FPN", "R101-FPN", "X101-32x8d-FPN", "R50-C4", "R50-DC5", "Mask R50-FPN", "Cascade Mask R50-FPN"],
)
def test_parameters(build, expected):
    with torch.device("meta"):
        assert count(build(80)) == expected


def test_frozen_parts_are_not_counted_as_learning():
    with torch.device("meta"):
        assert count(parity_models.detectron2_fpn(80), learning=True) == 41_477_536
