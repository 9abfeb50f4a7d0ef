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
from pycocotools import mask as coco_mask
from torch import nn
from torchvision.ops import box_iou

from frcnn.checkpoint.detectron2 import from_detectron2
from frcnn.ops.masks import cut_masks, paste_masks
from frcnn.structures import Batch, Detections, Proposals, Targets

GOLDEN = Path(golden_fill.__file__).parent

CASES = {
    "faster_rcnn_R_50_FPN": parity_models.detectron2_fpn,
    "faster_rcnn_R_50_C4": parity_models.detectron2_c4,
    "mask_rcnn_R_50_FPN": parity_models.detectron2_mask_fpn,
    "cascade_mask_rcnn_R_50_FPN": parity_models.detectron2_cascade_mask,
}
BITMASK_LOSSES = {"COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml": 0.91368}
LOSS_NAMES = {
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_mask": "loss_mask",
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
    assert converted.unused == []
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
    partners = check_detections(detections, golden.expected["detections"])
    if "mask_area" in golden.expected["detections"][0]:
        check_masks(detections, golden.expected, partners)


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


def check_detections(
    detections: Sequence[Detections], expected_detections: list[dict[str, Any]]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Compared as sets; returns for each image which of ours are which of theirs."""
    partners = []
    for ours, expected in zip(detections, expected_detections, strict=True):
        assert len(ours) == expected["count"]
        boxes, scores = torch.tensor(expected["boxes"]), torch.tensor(expected["scores"])
        same = (ours.boxes[:, None] - boxes).abs().amax(dim=-1) < 1e-2  # [ours, theirs]
        same &= ours.classes[:, None] == torch.tensor(expected["classes"])
        same &= (ours.scores[:, None] - scores).abs() < 1e-4
        assert same.any(dim=0).all()
        partners.append(torch.where(same))
    return partners


def check_masks(detections, expected: dict[str, Any], partners) -> None:
    """How many pixels of the image each mask has."""
    for ours, theirs, size, (mine, other) in zip(
        detections, expected["detections"], expected["sizes"], partners, strict=True
    ):
        areas = paste_masks(ours.masks, ours.boxes, tuple(size)).sum(dim=(1, 2))[mine]
        expected_areas = torch.tensor(theirs["mask_area"])[other]
        assert (expected_areas > 0).sum() >= 20
        torch.testing.assert_close(areas.float(), expected_areas.float(), rtol=5e-3, atol=0)


def rasterised(box: torch.Tensor, corner: torch.Tensor, scale: torch.Tensor, size) -> torch.Tensor:
    """[h, w] bool: a box as a polygon, seen from a corner and scaled, as COCO's tools fill it."""
    x1, y1, x2, y2 = ((box.reshape(2, 2) - corner) * scale).flatten().double().tolist()
    rle = coco_mask.frPyObjects([[x1, y1, x2, y1, x2, y2, x1, y2]], *size)
    return torch.from_numpy(coco_mask.decode(coco_mask.merge(rle))).bool()


def masks_of_polygons(targets: Sequence[Targets], masks, positives, resolution: int) -> torch.Tensor:
    """detectron2's targets: the polygon of each object, moved and scaled into the ROI, and filled there."""
    (objects,) = (t for t in targets if t.masks is masks)
    return torch.stack(
        [
            rasterised(objects.boxes[i], box[:2], resolution / (box[2:] - box[:2]), (resolution, resolution))
            for i, box in zip(positives.gt_index.tolist(), positives.boxes, strict=True)
        ]
    ).float()


def test_training_losses(golden):
    targets = []
    for i, size in enumerate(golden.expected["sizes"]):
        boxes, classes = golden_fill.ground_truth(21 + i, *size, num_classes=golden.expected["num_classes"])
        boxes, classes = torch.from_numpy(boxes), torch.from_numpy(classes)
        masks = cut_masks(torch.stack([rasterised(box, torch.zeros(2), torch.ones(2), size) for box in boxes]))
        targets.append(Targets(boxes, classes, masks))
    golden.model.train()
    bitmask_loss = None
    with torch.no_grad():
        losses = golden.model(batch(golden.expected["sizes"], targets)).losses
        if "mask" in golden.model.roi_heads.branches:
            # detectron2 trains on polygons or on bitmasks. Ours are bitmasks; the stored losses are of polygons.
            bitmask_loss = losses["loss_mask"].item()
            mask_branch = golden.model.roi_heads.branches["mask"]
            mask_branch.gt_masks = partial(masks_of_polygons, targets)
            losses = golden.model(batch(golden.expected["sizes"], targets)).losses
            del mask_branch.gt_masks
    golden.model.eval()
    if bitmask_loss is not None:
        measured_with_detectron2 = BITMASK_LOSSES.get(golden.expected["config"])
        assert measured_with_detectron2 is None or bitmask_loss == pytest.approx(measured_with_detectron2, rel=1e-5)
        assert bitmask_loss == pytest.approx(golden.expected["training_losses"]["loss_mask"], rel=5e-4)
    compared = golden.expected["training_losses"]
    for name, expected in compared.items():
        base, _, stage = name.partition("_stage")
        ours = LOSS_NAMES[base] + (f"_stage{stage}" if stage else "")
        assert losses[ours].item() == pytest.approx(expected, rel=1e-4), name
    assert len([name for name in losses if name.startswith("loss")]) == len(compared)
