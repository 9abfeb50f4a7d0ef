"""Our detectors against what detectron2 gave for the weights of `golden_fill`.

Tolerances: features 1e-3 relative, boxes 1e-2 px, scores 1e-4, losses 1e-4 relative.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import golden_fill
import parity_models
import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from frcnn.checkpoint.detectron2 import from_detectron2
from frcnn.structures import Batch, Detections, Proposals, Targets

GOLDEN = Path(golden_fill.__file__).parent

CASES = {
    "faster_rcnn_R_50_FPN": parity_models.detectron2_fpn,
    "faster_rcnn_R_50_C4": parity_models.detectron2_c4,
    "cascade_mask_rcnn_R_50_FPN": parity_models.detectron2_cascade,
}
LOSS_NAMES = {
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
}


@dataclass(frozen=True)
class Golden:
    """What detectron2 gave, and our model with the same weights."""

    expected: dict[str, Any]
    model: nn.Module


@pytest.fixture(scope="module", params=CASES)
def golden(request) -> Golden:
    """Cheap beside the tests: with xdist a test may be taken by a worker that has not built the model yet."""
    name = request.param
    expected = json.loads((GOLDEN / f"{name}_golden.json").read_text())
    model = CASES[name](expected["num_classes"]).eval()
    weights = golden_fill.fill(golden_fill.load_names(str(GOLDEN / f"{name}_names.json")))
    converted = from_detectron2({key: torch.from_numpy(value) for key, value in weights.items()})
    assert all(key.startswith("roi_heads.mask_head.") for key in converted.unused)
    model.load_state_dict(converted.state_dict)
    if name == "faster_rcnn_R_50_C4":
        model.roi_heads.run_head = partial(some_rois_at_a_time, model.roi_heads.run_head)
    return Golden(expected, model)


def some_rois_at_a_time(run_head, features, boxes_per_image):
    """4,000 ROIs of 1024 x 14 x 14 are 3 GB: the C4 head is given 200 at a time."""
    outputs = []
    for image, boxes in enumerate(boxes_per_image):
        one_image = {name: feature[image : image + 1] for name, feature in features.items()}
        outputs.extend(run_head(one_image, [some]) for some in boxes.split(200))
    class_logits, deltas = zip(*outputs, strict=True)
    return torch.cat(class_logits), torch.cat(deltas)


def batch(sizes, targets=None) -> Batch:
    sizes = [(height, width) for height, width in sizes]
    return Batch(
        # The golden images' channels are already in the order the weights expect.
        images=[torch.from_numpy(golden_fill.image(11 + i, *size)).permute(2, 0, 1) for i, size in enumerate(sizes)],
        image_sizes=sizes,
        original_sizes=sizes,
        image_ids=list(range(len(sizes))),
        targets=targets,
    )


def test_features_proposals_and_detections(golden):
    features, proposals = {}, []

    def record(module, inputs, output):
        features.update(inputs[0])
        proposals.extend(output[0])

    handle = golden.model.proposal_generator.register_forward_hook(record)
    with torch.no_grad():
        detections = golden.model(batch(golden.expected["sizes"])).detections
    handle.remove()
    check_features(features, golden.expected["features"])
    check_proposals(proposals, golden.expected["proposals"])
    check_detections(detections, golden.expected["detections"])


def check_features(features: dict[str, torch.Tensor], expected_features: dict[str, Any]) -> None:
    assert set(expected_features) <= set(features)
    for name, expected in expected_features.items():
        feature = features[name]
        assert list(feature.shape) == expected["shape"]
        assert feature.std().item() == pytest.approx(expected["std"], rel=1e-3)
        assert feature.mean().item() == pytest.approx(expected["mean"], rel=1e-3, abs=1e-3 * expected["std"])
        corner = feature[0, :4, 0, 0]  # four channels of the first position
        torch.testing.assert_close(corner, torch.tensor(expected["corner"]), rtol=1e-3, atol=1e-3 * expected["std"])


def check_proposals(proposals: list[Proposals], expected_proposals: list[dict[str, Any]]) -> None:
    for ours, expected in zip(proposals, expected_proposals, strict=True):
        assert len(ours) == expected["count"]
        boxes, logits = torch.tensor(expected["boxes"]), torch.tensor(expected["objectness_logits"])
        partner = box_iou(boxes, ours.boxes).argmax(dim=1)
        torch.testing.assert_close(ours.boxes[partner], boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(ours.objectness[partner], logits, rtol=1e-3, atol=1e-3)


def check_detections(detections: Sequence[Detections], expected_detections: list[dict[str, Any]]) -> None:
    for ours, expected in zip(detections, expected_detections, strict=True):
        assert len(ours) == expected["count"]
        boxes, scores = torch.tensor(expected["boxes"]), torch.tensor(expected["scores"])
        same = (ours.boxes[:, None] - boxes).abs().amax(dim=-1) < 1e-2  # [ours, theirs]
        same &= ours.classes[:, None] == torch.tensor(expected["classes"])
        same &= (ours.scores[:, None] - scores).abs() < 1e-4
        assert same.any(dim=0).all()


def test_training_losses(golden):
    targets = []
    for i, size in enumerate(golden.expected["sizes"]):
        boxes, classes = golden_fill.ground_truth(21 + i, *size, num_classes=golden.expected["num_classes"])
        targets.append(Targets(torch.from_numpy(boxes), torch.from_numpy(classes)))
    golden.model.train()
    with torch.no_grad():
        losses = golden.model(batch(golden.expected["sizes"], targets)).losses
    golden.model.eval()
    compared = {name: value for name, value in golden.expected["training_losses"].items() if name != "loss_mask"}
    for name, expected in compared.items():
        base, _, stage = name.partition("_stage")
        ours = LOSS_NAMES[base] + (f"_stage{stage}" if stage else "")
        assert losses[ours].item() == pytest.approx(expected, rel=1e-4), name
    assert len([name for name in losses if name.startswith("loss")]) == len(compared)
