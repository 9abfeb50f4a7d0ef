"""Our detectors against torchvision's own, with the same weights, images, targets and samples.

A fresh network detects nothing, so a comparison of fresh networks cannot fail: the tests first ask for enough detections
and enough positive ROIs.
"""

from __future__ import annotations

import pytest
import torch
from torchvision_pairs import (
    Pair,
    assert_same_detections,
    assert_same_masks_and_keypoints,
    bit_equal_norms,
    ground_truth,
    make_pair,
    our_batch,
)

from frcnn.checkpoint.torchvision import from_torchvision

CASES = [
    ("fasterrcnn_resnet50_fpn", "FrozenBN", {}),
    ("fasterrcnn_resnet50_fpn", "FrozenBN", {"norm_eps": 0.0}),
    ("fasterrcnn_resnet50_fpn", "BN", {}),
    ("fasterrcnn_resnet50_fpn_v2", "BN", {}),
    ("fasterrcnn_mobilenet_v3_large_fpn", "FrozenBN", {}),
    ("fasterrcnn_mobilenet_v3_large_fpn", "BN", {}),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "FrozenBN", {}),
    ("maskrcnn_resnet50_fpn", "FrozenBN", {}),
    ("maskrcnn_resnet50_fpn_v2", "BN", {}),
    ("keypointrcnn_resnet50_fpn", "BN", {}),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, (*case[:2], *case[2].values()))))
def pair(request) -> Pair:
    name, norm, options = request.param
    return make_pair(name, norm, **options)


def test_detections(pair):
    pair.theirs.eval()
    pair.ours.eval()
    unpasted = []  # masks in the frames of their boxes, which torchvision pastes into the image before it returns
    handle = pair.theirs.roi_heads.register_forward_hook(
        lambda module, inputs, output: unpasted.extend(map(dict, output[0]))
    )
    with torch.no_grad():
        theirs = pair.theirs(pair.images)
        ours = pair.ours(our_batch(pair, None))
    handle.remove()
    assert ours.losses == {}
    for mine, other, before in zip(ours.detections, theirs, unpasted, strict=True):
        assert len(other["boxes"]) >= 50
        assert len(other["labels"].unique()) >= min(5, pair.num_classes)
        ties = 0 if bit_equal_norms(pair.theirs) else 2
        same = assert_same_detections(mine, other, ties)
        assert_same_masks_and_keypoints(mine, {**other, "masks": before.get("masks")}, same)


@pytest.mark.parametrize("without_objects", [None, 1], ids=["objects", "one image without"])
def test_training_losses(pair, without_objects):
    pair.theirs.train()
    pair.ours.train()
    targets = ground_truth(pair, without_objects)
    statistics = {name: value.clone() for name, value in pair.theirs.named_buffers()}
    with torch.no_grad():
        theirs = pair.theirs(pair.images, targets)
        ours = pair.ours(our_batch(pair, targets)).losses
    num_positive = pair.theirs.roi_heads.fg_bg_sampler.num_positive
    assert all(count >= 20 or image == without_objects for image, count in enumerate(num_positive))
    assert set(theirs) == {name for name in ours if name.startswith("loss")}
    for name in theirs:
        assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5), name
        assert theirs[name] > 0
    # Training moved the statistics of batch norms, of both alike; the next test starts where this one did.
    for name, value in from_torchvision(pair.theirs.state_dict()).state_dict.items():
        torch.testing.assert_close(pair.ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    pair.theirs.load_state_dict(statistics, strict=False)
    pair.ours.load_state_dict(from_torchvision(pair.theirs.state_dict()).state_dict)
