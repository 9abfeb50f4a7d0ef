"""Test-time augmentation: one image seen at several sizes and in a mirror, and what was found in each view merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.roles import Detector
from frcnn.ops.box_fusion import weighted_box_fusion
from frcnn.ops.nms import nms_per_class
from frcnn.structures import Batch, Detections, Output


@dataclass(frozen=True, kw_only=True)
class TestTimeAugmentation:
    """Views of an image, and how what was found in them is merged.

    Args:
        sizes: lengths of the shorter side, in pixels.
        max_size: longest that the longer side may become, in pixels.
        flip: whether each size is also seen in a mirror.
        merge: nms keeps the best of the boxes that overlap; wbf takes their mean (weighted box fusion).
        iou_threshold: boxes whose IoU is above it are merged; null is 0.5, and 0.7 for proposals alone (`roi_heads: null`).
        detections_per_image: how many are kept at most; null is 100, and 1000 for proposals alone.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    sizes: tuple[int, ...]
    max_size: int = 4000
    flip: bool = True
    merge: Literal["nms", "wbf"] = "nms"
    iou_threshold: float | None = None
    detections_per_image: int | None = None

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or self.max_size < 1:
            raise ValueError(
                f"sizes must be one or more lengths of at least 1 pixel, got {list(self.sizes)}, max_size {self.max_size}"
            )
        if self.iou_threshold is not None and not 0 < self.iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {self.iou_threshold}")
        if self.detections_per_image is not None and self.detections_per_image < 1:
            raise ValueError(f"detections_per_image must be at least 1, got {self.detections_per_image}")

    @property
    def views(self) -> list[View]:
        """The upright views first."""
        mirrors = (False, True) if self.flip else (False,)
        return [View(size, self.max_size, flipped) for flipped in mirrors for size in self.sizes]


@dataclass(frozen=True)
class View:
    """One way of looking at an image.

    Args:
        size: length of the shorter side in pixels.
        max_size: longest that the longer side may become.
        flipped: whether in a mirror.
    """

    size: int
    max_size: int
    flipped: bool


class AugmentedDetector(nn.Module):
    """A detector that looks at every image several times; takes batches and gives detections as the detector does.

    Images should come in their original size, since they are scaled here. Masks are the mean over all views, asked for the
    merged boxes; keypoints the mean over the upright ones.

    Args:
        detector: any detector; one with masks or keypoints must define `predict_branches`.
        options: the views and the merging.
    """

    def __init__(self, detector: Detector, options: TestTimeAugmentation) -> None:
        super().__init__()
        self.detector = detector
        self.options = options
        usual_threshold, usual_number = (0.5, 100) if detector.tells_classes_apart else (0.7, 1000)
        self.iou_threshold = usual_threshold if options.iou_threshold is None else options.iou_threshold
        self.detections_per_image = (
            usual_number if options.detections_per_image is None else options.detections_per_image
        )

    def forward(self, batch: Batch) -> Output:
        """Detects objects.

        Args:
            batch: images B x [3, h, w], 0..255, RGB; without targets.
        """
        if self.training or batch.targets is not None:
            raise ValueError("test-time augmentation only predicts: call eval(), and give no targets")
        views = self.options.views
        found = [self._in_view(batch, view) for view in views]  # V x B Detections
        merged = [self.merge(of_image) for of_image in zip(*found, strict=True)]
        if self.detector.detection_fields:
            merged = self._with_branches(batch, merged)
        return Output(merged, {})

    def merge(self, per_view: Sequence[Detections]) -> Detections:
        """The detections of one image from all its views, best first; without masks and keypoints."""
        boxes, scores, classes = (
            torch.cat([getattr(found, name) for found in per_view]) for name in ("boxes", "scores", "classes")
        )
        if self.options.merge == "wbf":
            fused = weighted_box_fusion(boxes, scores, classes, len(per_view), self.iou_threshold)
            boxes, scores, classes, index = fused.boxes, fused.scores, fused.classes, fused.best
        else:
            index = nms_per_class(boxes, scores, classes, self.iou_threshold)
            boxes, scores, classes = boxes[index], scores[index], classes[index]
        best = slice(self.detections_per_image)
        return Detections(boxes[best], scores[best], classes[best], index[best])

    def _in_view(self, batch: Batch, view: View) -> list[Detections]:
        output: Output = self.detector(seen(batch, view))
        assert output.detections is not None  # the detector is in evaluation mode
        return [
            mirrored(found, width) if view.flipped else found
            for found, (_, width) in zip(output.detections, batch.original_sizes, strict=True)
        ]

    def _with_branches(self, batch: Batch, detections: list[Detections]) -> list[Detections]:
        per_view = []
        for view in self.options.views:
            widths = [width for _, width in batch.original_sizes]
            asked = list(map(mirrored, detections, widths)) if view.flipped else detections
            answered = self.detector.predict_branches(seen(batch, view), asked)
            per_view.append(list(map(mirrored, answered, widths)) if view.flipped else answered)
        return [_mean_of_branches(found, answers) for found, *answers in zip(detections, *per_view, strict=True)]


def seen(batch: Batch, view: View) -> Batch:
    """The batch at another size, mirrored perhaps; its original sizes, to which detections are scaled, stay."""
    images, sizes, proposals = [], [], []
    for i, (image, (h, w)) in enumerate(zip(batch.images, batch.image_sizes, strict=True)):
        size = _scaled_size(h, w, view.size, view.max_size)
        scaled = F.interpolate(image[None, :, :h, :w].float(), size=size, mode="bilinear")[0]  # [3, h', w']
        images.append(scaled.flip(-1) if view.flipped else scaled)
        sizes.append(size)
        if batch.proposals is not None:
            boxes = batch.proposals[i] * batch.proposals[i].new_tensor([size[1] / w, size[0] / h] * 2)
            proposals.append(_mirrored_boxes(boxes, size[1]) if view.flipped else boxes)
    return replace(
        batch, images=images, image_sizes=sizes, proposals=proposals if batch.proposals is not None else None
    )


def mirrored(found: Detections, width: int) -> Detections:
    """Detections in a mirror image; keypoints, whose left and right only the data set knows, are left out.

    Args:
        found: in the pixels of an image.
        width: of that image in pixels.
    """
    masks = None if found.masks is None else found.masks.flip(-1)
    return replace(found, boxes=_mirrored_boxes(found.boxes, width), masks=masks, keypoints=None)


def _mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack((width - x2, y1, width - x1, y2), dim=-1)


def _mean_of_branches(found: Detections, answers: Sequence[Detections]) -> Detections:
    masks = [answer.masks for answer in answers if answer.masks is not None]
    keypoints = [answer.keypoints for answer in answers if answer.keypoints is not None]
    return replace(
        found,
        masks=torch.stack(masks).mean(dim=0) if masks else None,
        keypoints=torch.stack(keypoints).mean(dim=0) if keypoints else None,
    )


def _scaled_size(height: int, width: int, size: int, max_size: int) -> tuple[int, int]:
    scale = min(size / min(height, width), max_size / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
