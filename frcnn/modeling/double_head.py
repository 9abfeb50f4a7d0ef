"""Double-Head R-CNN (https://arxiv.org/abs/1904.06493): fully connected layers classify, convolutions regress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from frcnn.config import Factory
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
from frcnn.structures import Batch, Proposals, Rois, ScoredBoxes


@ROI_HEADS.register
class DoubleHeadROIHeads(StandardROIHeads):
    """Standard ROI heads with two box heads: one that classifies, and one that regresses on enlarged boxes.

    The same predictor reads both: its classes from the first, its deltas from the second. Deltas are relative to the
    boxes as they were; enlarged they are only pooled, from the level that suits their enlarged size.

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        matcher: decides which ground truth a proposal stands for.
        sampler: decides which proposals are trained on.
        pooler: features of a fixed size for every box.
        box_head: the one that classifies, fully connected as a rule.
        regression_head: the one that moves boxes, convolutional as a rule; as wide as box_head.
        box_predictor: from the vectors to classes and boxes.
        postprocess: from scored boxes to detections.
        branches: what follows the boxes, by name: masks, keypoints.
        append_gt: whether ground truths are added to the proposals in training.
        regression_scale: factor on the sides of the boxes that regression_head sees.
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
        regression_head: Factory[BoxHead],
        box_predictor: Factory[BoxPredictor],
        postprocess: Postprocess,
        branches: dict[str, Factory[ROIBranch]],
        append_gt: bool = True,
        regression_scale: float = 1.3,
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
        if not regression_scale > 0:
            raise ValueError(f"regression_scale must be above 0, got {regression_scale}")
        self.regression_scale = regression_scale
        self.regression_head = regression_head(self.box_roi_pool.out_channels, self.box_roi_pool.resolution)
        if self.regression_head.out_channels != self.box_head.out_channels:
            raise ValueError(
                f"box_head and regression_head must be equally wide, got {self.box_head.out_channels} and "
                f"{self.regression_head.out_channels}"
            )

    def two_vectors(self, features: Features, boxes_per_image: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the predictor classifies from and what it regresses from, each [R, out_channels]."""
        enlarged = [enlarge_boxes(boxes, self.regression_scale) for boxes in boxes_per_image]
        to_classify = self.box_head(self.box_roi_pool(features, boxes_per_image))
        return to_classify, self.regression_head(self.box_roi_pool(features, enlarged))

    def run_head(self, features: Features, boxes_per_image: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B x [r, 4] -> class_logits [R, num_logits] of one head, deltas [R, 4K or 4] of the other."""
        to_classify, to_regress = self.two_vectors(features, boxes_per_image)
        return self.box_predictor.classify(to_classify), self.box_predictor.regress(to_regress)


@ROI_HEADS.register
class DoubleHeadExtROIHeads(DoubleHeadROIHeads):
    """Double-Head-Ext: each head also learns the other's task a little, and the scores of both are fused.

    The fused score of a class is `s_fc + s_conv (1 - s_fc)` (section 5.2 of the paper); boxes are those of
    `regression_head`, which has a predictor of its own here.

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        matcher: decides which ground truth a proposal stands for.
        sampler: decides which proposals are trained on.
        pooler: features of a fixed size for every box.
        box_head: the one that classifies, fully connected as a rule.
        regression_head: the one that moves boxes, convolutional as a rule; as wide as box_head.
        box_predictor: from a head's vector to classes and boxes; each head has one.
        postprocess: from scored boxes to detections.
        branches: what follows the boxes, by name: masks, keypoints.
        append_gt: whether ground truths are added to the proposals in training.
        regression_scale: factor on the sides of the boxes that regression_head sees.
        classification_focus: share of the class loss in the losses of box_head; the rest is its box loss.
        regression_focus: share of the box loss in the losses of regression_head; the rest is its class loss.
        classification_weight: factor of both losses of box_head, beside their own weights; 2 in the paper (omega_fc).
        regression_weight: factor of both losses of regression_head, beside their own weights; 2.5 in the paper (omega_conv).
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
        regression_head: Factory[BoxHead],
        box_predictor: Factory[BoxPredictor],
        postprocess: Postprocess,
        branches: dict[str, Factory[ROIBranch]],
        append_gt: bool = True,
        regression_scale: float = 1.3,
        classification_focus: float = 0.7,
        regression_focus: float = 0.8,
        classification_weight: float = 1.0,
        regression_weight: float = 1.0,
    ) -> None:
        super().__init__(
            feature_shapes,
            num_classes,
            in_features=in_features,
            matcher=matcher,
            sampler=sampler,
            pooler=pooler,
            box_head=box_head,
            regression_head=regression_head,
            box_predictor=box_predictor,
            postprocess=postprocess,
            branches=branches,
            append_gt=append_gt,
            regression_scale=regression_scale,
        )
        for name, share in (("classification", classification_focus), ("regression", regression_focus)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}_focus must be in [0, 1], got {share}")
        for name, weight in (("classification", classification_weight), ("regression", regression_weight)):
            if weight < 0:
                raise ValueError(f"{name}_weight must be at least 0, got {weight}")
        self.classification_focus = classification_focus
        self.regression_focus = regression_focus
        self.classification_weight = classification_weight
        self.regression_weight = regression_weight
        self.regression_predictor = box_predictor(self.regression_head.out_channels, num_classes)

    def run_head(self, features: Features, boxes_per_image: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B x [r, 4] -> what each head says of its own task, for matchers and samplers that ask."""
        to_classify, to_regress = self.two_vectors(features, boxes_per_image)
        return self.box_predictor.classify(to_classify), self.regression_predictor.regress(to_regress)

    def compute_losses(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[dict[str, Tensor], list[Rois]]:
        rois = self.select_training_samples(features, proposals, batch)
        to_classify, to_regress = self.two_vectors(features, [r.boxes for r in rois])
        fc_logits, fc_deltas = self.box_predictor(to_classify)
        conv_logits, conv_deltas = self.regression_predictor(to_regress)
        fc = self.box_predictor.losses(fc_logits, fc_deltas, rois)
        conv = self.regression_predictor.losses(conv_logits, conv_deltas, rois)
        fc_weight, conv_weight = self.classification_weight, self.regression_weight
        losses = {
            "loss_classifier": fc["loss_classifier"] * (fc_weight * self.classification_focus),
            "loss_box_reg": conv["loss_box_reg"] * (conv_weight * self.regression_focus),
            "loss_classifier_unfocused": conv["loss_classifier"] * (conv_weight * (1 - self.regression_focus)),
            "loss_box_reg_unfocused": fc["loss_box_reg"] * (fc_weight * (1 - self.classification_focus)),
        }
        return losses | sampling_counts(rois, self.num_classes), rois

    def predict(
        self, features: Features, boxes_per_image: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Fused scores of given boxes, and where the regression head moves them, clipped to the image.

        Args:
            features: maps [B, C, H, W].
            boxes_per_image: B x [r, 4].
            image_sizes: B x (h, w).

        Returns:
            B ScoredBoxes.
        """
        to_classify, to_regress = self.two_vectors(features, boxes_per_image)
        fc_logits, fc_deltas = self.box_predictor(to_classify)
        conv_logits, conv_deltas = self.regression_predictor(to_regress)
        of_fc = scored_boxes(self.box_predictor, fc_logits, fc_deltas, boxes_per_image, image_sizes)
        of_conv = scored_boxes(self.regression_predictor, conv_logits, conv_deltas, boxes_per_image, image_sizes)
        return [
            replace(conv, scores=fc.scores + conv.scores * (1 - fc.scores))
            for fc, conv in zip(of_fc, of_conv, strict=True)
        ]


def enlarge_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Boxes [n, 4] with their sides multiplied, around the same centres; they may leave the image."""
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    half_w, half_h = (x2 - x1) * (scale / 2), (y2 - y1) * (scale / 2)
    return torch.stack((x - half_w, y - half_h, x + half_w, y + half_h), dim=-1)
