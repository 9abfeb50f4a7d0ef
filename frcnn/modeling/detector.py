"""The whole detector: image preparation, the parts in the order of the paper, detections in original pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.modeling.agreement import check_box_dim, check_proposal_type
from frcnn.modeling.roles import DETECTORS, Backbone, Detector, Features, Neck, ProposalGenerator, ROIHeads
from frcnn.ops.boxes import clip_boxes, large_mask
from frcnn.structures import Batch, Detections, Output, Proposals


@DETECTORS.register
class FasterRCNN(Detector):
    """Faster R-CNN (https://arxiv.org/abs/1506.01497): proposals from a network, then a closer look at each.

    Args:
        pixel_mean: subtracted from the pixel values 0..255, in the order of `channel_order`.
        pixel_std: divides them, in the order of `channel_order`.
        backbone: makes feature maps of the image.
        necks: change the feature maps, one after the other.
        proposal_generator: finds regions that may hold an object.
        roi_heads: say what each region holds, and where; null leaves a detector of proposals alone, whose detections are
            the proposals, all of class 0, scored by the probability that they hold an object.
        channel_order: what the backbone was trained with; images always arrive as RGB.
        size_divisibility: images are padded to a multiple of this many pixels; null asks the backbone and the necks.
        clip_detections: whether detections are clipped, and empty ones dropped, after they were scaled to the original
            image (detectron2); torchvision does neither.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        backbone: Backbone,
        necks: list[Factory[Neck]],
        proposal_generator: Factory[ProposalGenerator],
        roi_heads: Factory[ROIHeads] | None,
        channel_order: Literal["RGB", "BGR"] = "RGB",
        size_divisibility: int | None = None,
        clip_detections: bool = True,
    ) -> None:
        super().__init__(num_classes)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if len(pixel_mean) != 3 or len(pixel_std) != 3 or not all(std > 0 for std in pixel_std):
            raise ValueError(f"pixel_mean and pixel_std are three numbers, std above 0, got {pixel_mean}, {pixel_std}")
        if size_divisibility is not None and size_divisibility < 1:
            raise ValueError(f"size_divisibility must be at least 1, got {size_divisibility}")
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).reshape(3, 1, 1), persistent=False)
        self.channel_order = channel_order
        self.clip_detections = clip_detections

        self.backbone = backbone
        self.necks = nn.ModuleList()
        shapes = backbone.feature_shapes
        asked = backbone.size_divisibility
        for make_neck in necks:
            neck = make_neck(shapes)
            self.necks.append(neck)
            shapes = neck.feature_shapes
            asked = math.lcm(asked, neck.size_divisibility)
        self.proposal_generator = proposal_generator(shapes)
        self.roi_heads = None if roi_heads is None else roi_heads(shapes, num_classes)
        if self.roi_heads is not None:
            check_proposal_type(self.proposal_generator, self.roi_heads)
        check_box_dim(self)
        self.size_divisibility = asked if size_divisibility is None else size_divisibility

    @property
    def tells_classes_apart(self) -> bool:
        """Without ROI heads it finds objects of any class; of one class, these are that class."""
        return self.roi_heads is not None or self.num_classes == 1

    @property
    def learns(self) -> bool:
        return self.roi_heads is not None or not self.proposal_generator.reads_proposals

    def forward(self, batch: Batch) -> Output:
        """Detects objects and, where targets are given, computes losses.

        Args:
            batch: images B x [3, h, w] or [B, 3, H, W], 0..255, RGB.

        Returns:
            detections in the pixels of the original images (None in training mode), and losses (empty without targets).
        """
        batch, features = self.extract_features(batch)
        proposals, proposal_losses = self.proposal_generator(features, batch)
        detections, roi_losses = self._look_closer(features, proposals, batch)
        if detections is not None:
            detections = list(map(self.to_original_size, detections, batch.image_sizes, batch.original_sizes))
        return Output(detections, {**proposal_losses, **roi_losses})

    def extract_features(self, batch: Batch) -> tuple[Batch, Features]:
        """The batch with its images normalised and padded, and their maps behind the last neck."""
        batch = replace(batch, images=self.prepare(batch.images, batch.image_sizes))
        features = self.backbone(batch.images)
        for neck in self.necks:
            features = neck(features)
        return batch, features

    def predict_branches(self, batch: Batch, detections: Sequence[Detections]) -> list[Detections]:
        """What the branches say of given boxes.

        Args:
            batch: images B x [3, h, w], 0..255, RGB.
            detections: B Detections in the pixels of the original images.

        Returns:
            the same boxes with masks and keypoints, in the pixels of the original images.
        """
        if self.roi_heads is None:
            return list(detections)
        batch, features = self.extract_features(batch)
        sizes = list(zip(batch.original_sizes, batch.image_sizes, strict=True))
        in_view = [
            replace(
                found, boxes=found.boxes * found.boxes.new_tensor([seen[1] / original[1], seen[0] / original[0]] * 2)
            )
            for found, (original, seen) in zip(detections, sizes, strict=True)
        ]
        answers = self.roi_heads.predict_branches(features, in_view)
        return [
            replace(answer, boxes=found.boxes, keypoints=_scaled_keypoints(answer.keypoints, seen, original))
            for found, answer, (original, seen) in zip(detections, answers, sizes, strict=True)
        ]

    def _look_closer(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[list[Detections] | None, dict[str, Tensor]]:
        """What the ROI heads say of the proposals; without ROI heads the proposals themselves are the detections."""
        if self.roi_heads is not None:
            return self.roi_heads(features, proposals, batch)
        return None if self.training else [as_detections(found) for found in proposals], {}

    def prepare(self, images: Sequence[Tensor] | Tensor, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Normalises in float32, then pads at the right and the bottom, so that the padding is 0 for the network.

        Args:
            images: B x [3, h, w], or [B, 3, H, W] that may be padded already.
            image_sizes: B x (h, w) without padding.

        Returns:
            [B, 3, H, W] float32.
        """
        height, width = (_round_up(max(sides), self.size_divisibility) for sides in zip(*image_sizes, strict=True))
        prepared = []
        for image, (h, w) in zip(images, image_sizes, strict=True):
            image = image[:, :h, :w].float()
            if self.channel_order == "BGR":
                image = image.flip(0)
            normalised = (image - self.pixel_mean) / self.pixel_std  # [3, h, w]
            prepared.append(F.pad(normalised, (0, width - w, 0, height - h)))
        return torch.stack(prepared)

    def to_original_size(
        self, detections: Detections, image_size: tuple[int, int], original_size: tuple[int, int]
    ) -> Detections:
        """Scales boxes and keypoints from the image the network saw, (h, w), to the original; each axis by itself."""
        scale_y, scale_x = (original / seen for original, seen in zip(original_size, image_size, strict=True))
        boxes = detections.boxes * detections.boxes.new_tensor((scale_x, scale_y, scale_x, scale_y))
        keypoints = _scaled_keypoints(detections.keypoints, image_size, original_size)
        if not self.clip_detections:
            return replace(detections, boxes=boxes, keypoints=keypoints)
        boxes = clip_boxes(boxes, original_size)
        return replace(detections, boxes=boxes, keypoints=keypoints).select(large_mask(boxes))


def as_detections(proposals: Proposals) -> Detections:
    """The proposals of one image as detections of class 0, scored by the sigmoid of their objectness."""
    row = torch.arange(proposals.boxes.shape[0], device=proposals.boxes.device)
    return Detections(proposals.boxes, proposals.objectness.sigmoid(), torch.zeros_like(row), row)


def _scaled_keypoints(keypoints: Tensor | None, size: tuple[int, int], to_size: tuple[int, int]) -> Tensor | None:
    """[D, J, 3] in an image (h, w), moved to one of another size."""
    if keypoints is None:
        return None
    return keypoints * keypoints.new_tensor((to_size[1] / size[1], to_size[0] / size[0], 1.0))


def _round_up(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
