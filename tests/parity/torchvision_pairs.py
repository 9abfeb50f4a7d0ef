"""torchvision's detectors beside ours: the same weights, images, targets and samples for both.

A fresh network detects nothing, so a comparison of fresh networks cannot fail: weights come from `golden_fill`, and the
outputs are spread out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import golden_fill
import parity_models
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops import box_iou
from torchvision.ops.misc import FrozenBatchNorm2d

from frcnn.checkpoint.torchvision import from_torchvision
from frcnn.ops.masks import cut_masks
from frcnn.structures import Batch, Detections, Targets

SIZES = [(200, 264), (256, 240)]  # height, width
# Small images and fewer proposals in evaluation keep this fast; everything else is torchvision's default.
SMALL = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"min_size": 224, "max_size": 320},
    "others": {"min_size": 224, "max_size": 320, "rpn_post_nms_top_n_test": 300},
}


@dataclass(frozen=True)
class Pair:
    """torchvision's detector, ours with its weights, and images in 0..1 for torchvision."""

    theirs: nn.Module
    ours: nn.Module
    images: list[Tensor]
    num_classes: int


def make_pair(name: str, norm: str, **options) -> Pair:
    """The detector that torchvision calls `name`, and ours.

    Args:
        name: of a function of torchvision.models.detection and of parity_models.
        norm: of the backbone.
        options: of parity_models' function.
    """
    images = [noisy_image(11 + i, size) for i, size in enumerate(SIZES)]
    theirs = getattr(detection, name)(weights=None, weights_backbone=None, **SMALL.get(name, SMALL["others"])).eval()
    if norm == "FrozenBN":
        use_frozen_norms(theirs.backbone, options.get("norm_eps", 1e-5))
    theirs.load_state_dict(filled(theirs.state_dict()))
    spread_outputs(theirs, images)
    theirs.rpn.fg_bg_sampler = FirstOfTorchvision(256, 0.5)
    theirs.roi_heads.fg_bg_sampler = FirstOfTorchvision(512, 0.25)

    ours = getattr(parity_models, name)(norm, **options)
    converted = from_torchvision(theirs.state_dict())
    assert converted.unused == []
    ours.load_state_dict(converted.state_dict)
    return Pair(theirs, ours, images, ours.num_classes)


def noisy_image(seed: int, size: tuple[int, int]) -> Tensor:
    """[3, h, w] in 0..1. Noise makes every place different: two equal ones would be ranked by rounding alone."""
    image = torch.from_numpy(golden_fill.image(seed, *size)).permute(2, 0, 1) / 255.0
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
    return 0.7 * image + 0.3 * noise


def use_frozen_norms(module: nn.Module, eps: float) -> None:
    """What torchvision builds when it is given pretrained weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps))
        use_frozen_norms(child, eps)


def filled(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(golden_fill.fill_one(name, list(value.shape))) if value.is_floating_point() else value
        for name, value in state_dict.items()
    }


@torch.no_grad()
def spread_outputs(theirs: nn.Module, images: list[Tensor]) -> None:
    """Makes the outputs of both heads differ from place to place and from class to class.

    Class logits get mean 0 and deviation 1.5, so that there are detections of many classes. The RPN's deltas get
    deviation 0.5 and make boxes e times as large: ROIs below one pixel of the feature map all look the same to
    torchvision's pooling, and where p6 of a MobileNet repeats p5 with the same anchors, such twins would be ranked by
    rounding alone. Mask logits get deviation 1.5 too.
    """
    deltas, logits = theirs.rpn.head.bbox_pred, theirs.roi_heads.box_predictor.cls_score
    outputs = outputs_of((deltas, logits), theirs, images)
    deltas.weight *= 0.5 / outputs[deltas].std()
    deltas.bias.view(-1, 4)[:, 2:] += 1.0
    mean, scale = outputs[logits].mean(dim=0), 1.5 / outputs[logits].std(dim=0).mean()
    logits.weight *= scale
    logits.bias.copy_((logits.bias - mean) * scale)
    # Masks are made of detections, and there are some only now.
    masks = [layer for name, layer in theirs.named_modules() if name.endswith("mask_fcn_logits")]
    for layer, output in outputs_of(masks, theirs, images).items():
        layer.weight *= 1.5 / output.std()


def outputs_of(layers: Sequence[nn.Module], model: nn.Module, images: list[Tensor]) -> dict[nn.Module, Tensor]:
    """What each layer gives when it is first called."""
    outputs: dict[nn.Module, Tensor] = {}

    def remember(module: nn.Module, inputs: object, output: Tensor) -> None:
        outputs.setdefault(module, output)

    handles = [layer.register_forward_hook(remember) for layer in layers]
    if layers:
        model(images)
    for handle in handles:
        handle.remove()
    return outputs


class FirstOfTorchvision:
    """`parity_models.FirstSampler` as torchvision calls it: labels in, masks out."""

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.num_positive: list[int] = []

    def __call__(self, labels_per_image: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        masks: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.num_positive = []
        for labels in labels_per_image:
            positive = (labels >= 1).nonzero().squeeze(1)[: int(self.batch_size_per_image * self.positive_fraction)]
            negative = (labels == 0).nonzero().squeeze(1)[: self.batch_size_per_image - len(positive)]
            self.num_positive.append(len(positive))
            for mask, index in zip(masks, (positive, negative), strict=True):
                mask.append(torch.zeros_like(labels, dtype=torch.bool).index_fill_(0, index, True))
        return masks


def ground_truth(pair: Pair, without_objects: int | None = None) -> list[dict[str, Tensor]]:
    """As torchvision wants it: labels from 1, masks of the whole image, 17 keypoints.

    Args:
        pair: who it is for.
        without_objects: an image that has none.
    """
    targets = []
    for i, size in enumerate(SIZES):
        boxes, classes = golden_fill.ground_truth(21 + i, *size, count=16, num_classes=pair.num_classes)
        count = 0 if i == without_objects else len(boxes)
        boxes = torch.from_numpy(boxes[:count])
        targets.append(
            {
                "boxes": boxes,
                "labels": torch.from_numpy(classes[:count]).to(torch.int64) + 1,
                "masks": ellipses(boxes, size),
                "keypoints": keypoints_around(boxes, seed=31 + i),
            }
        )
    return targets


def ellipses(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """[G, h, w] uint8: the ellipse in each box."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(dim=1)  # [G, 1, 1] each
    inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 < 1
    return inside.to(torch.uint8)


def keypoints_around(boxes: Tensor, seed: int) -> Tensor:
    """[G, 17, 3]: most in the box, some outside of it, one exactly on its lower right corner, of every visibility."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(len(boxes), 17, 2, generator=generator) * 1.2 - 0.1
    places[:, 0] = 1.0
    xy = boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2])
    visibility = torch.randint(0, 3, (len(boxes), 17, 1), generator=generator)
    return torch.cat((xy, visibility), dim=2)


def our_batch(pair: Pair, targets: list[dict[str, Tensor]] | None) -> Batch:
    """What torchvision's own transform makes of the images, so that resizing is not part of the comparison."""
    transformed, resized = pair.theirs.transform(pair.images, targets)
    return Batch(
        images=transformed.tensors,
        image_sizes=transformed.image_sizes,
        original_sizes=[tuple(image.shape[-2:]) for image in pair.images],
        image_ids=[0, 1],
        targets=None
        if targets is None
        else [
            Targets(t["boxes"], t["labels"] - 1, cut_masks(t["masks"].bool()), t["keypoints"].float()) for t in resized
        ],
    )


def assert_same_detections(ours: Detections, theirs: dict[str, Tensor], ties: int) -> Tensor:
    """Compared as sets: every one of theirs has one of ours with its class, box and score.

    Args:
        ours: of one image.
        theirs: of the same image.
        ties: how many may differ by a choice between twins: two boxes of IoU above 0.99 whose scores differ by less
            than 1e-5, so that rounding decides which of them suppresses the other.

    Returns:
        [ours, theirs] bool, which are the same.
    """
    assert len(ours) == len(theirs["boxes"])
    alike = ours.classes[:, None] == theirs["labels"] - 1  # [ours, theirs]
    alike &= (ours.scores[:, None] - theirs["scores"]).abs() < 1e-5
    same = alike & ((ours.boxes[:, None] - theirs["boxes"]).abs().amax(dim=-1) < 1e-3)
    twin = alike & (box_iou(ours.boxes, theirs["boxes"]) > 0.99)
    for side in (0, 1):
        assert twin.any(dim=side).all()
        assert (~same.any(dim=side)).sum() <= ties
    return same


def assert_same_masks_and_keypoints(ours: Detections, theirs: dict[str, Tensor], same: Tensor) -> None:
    """Masks in the frames of their boxes, keypoints in the image; of detections that are the same.

    Args:
        ours: of one image.
        theirs: of the same image.
        same: [ours, theirs] bool.
    """
    mine, other = torch.where(same)
    if theirs.get("masks") is not None:
        masks = theirs["masks"][other, 0]  # [n, 28, 28]
        assert masks.std() > 0.1
        torch.testing.assert_close(ours.masks[mine], masks, rtol=0, atol=1e-5)
    if "keypoints" in theirs:
        keypoints, scores = theirs["keypoints"][other], theirs["keypoints_scores"][other]
        torch.testing.assert_close(ours.keypoints[mine, :, :2], keypoints[:, :, :2], rtol=0, atol=1e-3)
        torch.testing.assert_close(ours.keypoints[mine, :, 2], scores, rtol=1e-5, atol=1e-5)


def bit_equal_norms(theirs: nn.Module) -> bool:
    """Whether both sides compute their norms by the same operation; the formulas of frozen ones round differently."""
    return not any(isinstance(module, FrozenBatchNorm2d) for module in theirs.modules())
