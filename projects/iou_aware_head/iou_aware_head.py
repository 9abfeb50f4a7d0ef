"""ROI heads that know how well they placed a box: the IoU is predicted, and counts in the score.

IoU-Net (https://arxiv.org/abs/1807.11590) shows that a class score says little about how well a box fits; the score
that is a product of both is that of IoU-aware RetinaNet (https://arxiv.org/abs/1912.05992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.distributed import mean_count
from frcnn.modeling.box_predictors import concatenate
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.roi_heads import StandardROIHeads, scored_boxes
from frcnn.modeling.roi_sampling import sampling_counts
from frcnn.modeling.roles import (
    ROI_HEADS,
    BoxHead,
    BoxPredictor,
    Features,
    FeatureShapes,
    Matcher,
    ROIBranch,
    ROIPooler,
    Sampler,
)
from frcnn.ops.boxes import paired_iou
from frcnn.structures import Batch, Proposals, Rois, ScoredBoxes


@ROI_HEADS.register
class IoUAwareROIHeads(StandardROIHeads):
    """Standard ROI heads with one more linear layer: the IoU that each class's box will have with its object.

    A detection scores `class score ** class_power * IoU ** (1 - class_power)`. The layer learns from positives only, from
    the IoU of the box as the predictor decodes it now, by binary cross entropy.

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        matcher: decides which ground truth a proposal stands for.
        sampler: decides which proposals are trained on.
        pooler: features of a fixed size for every box.
        box_head: from pooled features to a vector.
        box_predictor: from the vector to classes and boxes.
        postprocess: from scored boxes to detections.
        branches: what follows the boxes, by name: masks, keypoints.
        append_gt: whether ground truths are added to the proposals in training.
        class_power: share of the class in the score; 1 leaves it alone, 0 scores by the IoU alone.
        iou_loss_weight: factor of the loss of the IoU.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: tuple[str, ...],
        matcher: Matcher,
        sampler: Sampler,
        pooler: Factory[ROIPooler],
        box_head: Factory[BoxHead],
        box_predictor: Factory[BoxPredictor],
        postprocess: Postprocess,
        branches: dict[str, Factory[ROIBranch]],
        append_gt: bool = True,
        class_power: float = 0.5,
        iou_loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            feature_shapes,
            num_classes,
            in_features=in_features,
            matcher=matcher,
            sampler=sampler,
            pooler=pooler,
            box_head=box_head,
            box_predictor=box_predictor,
            postprocess=postprocess,
            branches=branches,
            append_gt=append_gt,
        )
        if not 0 <= class_power <= 1:
            raise ValueError(f"class_power must be in [0, 1], got {class_power}")
        if iou_loss_weight < 0:
            raise ValueError(f"iou_loss_weight must be at least 0, got {iou_loss_weight}")
        self.class_power = class_power
        self.iou_loss_weight = iou_loss_weight
        self.iou_pred = nn.Linear(self.box_head.out_channels, num_classes)
        nn.init.normal_(self.iou_pred.weight, std=0.01)
        nn.init.zeros_(self.iou_pred.bias)

    def run_heads(self, features: Features, boxes_per_image: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """B x [r, 4] -> class_logits [R, num_logits], deltas [R, 4K or 4], iou_logits [R, K]."""
        box_features = self.box_head(self.box_roi_pool(features, boxes_per_image))  # [R, out_channels]
        return *self.box_predictor(box_features), self.iou_pred(box_features).float()

    def compute_losses(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[dict[str, Tensor], list[Rois]]:
        rois = self.select_training_samples(features, proposals, batch)
        class_logits, deltas, iou_logits = self.run_heads(features, [r.boxes for r in rois])
        losses = self.box_predictor.losses(class_logits, deltas, rois)
        decoded = self.box_predictor.decode(class_logits.detach(), deltas.detach(), concatenate(rois).boxes)
        losses["loss_iou"] = self.iou_loss(iou_logits, decoded.boxes, concatenate(rois))
        return losses | sampling_counts(rois, self.num_classes), rois

    def iou_loss(self, iou_logits: Tensor, decoded: Tensor, rois: Rois) -> Tensor:
        """The mean cross entropy between the IoU that was predicted for positives and the one that their boxes have.

        Args:
            iou_logits: [R, K].
            decoded: [R, K, 4], where the predictor moves each box, for each class.
            rois: R ROIs.
        """
        positive = torch.where(rois.classes < self.num_classes)[0]  # [n]
        classes = rois.classes[positive]  # [n]
        iou = paired_iou(decoded[positive, classes], rois.gt_boxes[positive])  # [n]
        loss = F.binary_cross_entropy_with_logits(iou_logits[positive, classes], iou, reduction="sum")
        num_positive = loss.new_tensor(float(len(positive)))
        return loss / mean_count(num_positive, self.training) * self.iou_loss_weight

    def predict(
        self, features: Features, boxes_per_image: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Scores of given boxes, of class and IoU together.

        Args:
            features: maps [B, C, H, W].
            boxes_per_image: B x [r, 4].
            image_sizes: B x (h, w) that the boxes are clipped to.

        Returns:
            B ScoredBoxes.
        """
        class_logits, deltas, iou_logits = self.run_heads(features, boxes_per_image)
        scored = scored_boxes(self.box_predictor, class_logits, deltas, boxes_per_image, image_sizes)
        iou_per_image = iou_logits.sigmoid().split([boxes.shape[0] for boxes in boxes_per_image])  # B x [r, K]
        return [
            replace(s, scores=s.scores**self.class_power * iou ** (1 - self.class_power))
            for s, iou in zip(scored, iou_per_image, strict=True)
        ]
