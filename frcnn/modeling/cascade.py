"""Cascade R-CNN (https://arxiv.org/abs/1712.00726): rounds of classifying and moving, each pickier than the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.modeling.features import check_num_levels
from frcnn.modeling.modes import unobserved
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.roi_heads import BoxROIHeads, scored_boxes
from frcnn.modeling.roi_sampling import candidate_boxes, sample_rois, sampling_counts
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
from frcnn.modeling.samplers import AllSampler
from frcnn.ops.boxes import large_mask
from frcnn.structures import Batch, Proposals, Rois, ScoredBoxes


@dataclass(frozen=True, kw_only=True)
class CascadeStage:
    """One round of a cascade.

    Args:
        matcher: decides which ground truth a box of this round stands for.
        box_predictor: classes and boxes of this round, class-agnostic as a rule.
        sampler: decides which boxes are trained on; null keeps every box.
        loss_weight: factor of this round's losses.
    """

    matcher: Matcher
    box_predictor: Factory[BoxPredictor]
    sampler: Sampler | None = None
    loss_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.loss_weight < 0:
            raise ValueError(f"loss_weight must be at least 0, got {self.loss_weight}")


@ROI_HEADS.register
class CascadeROIHeads(BoxROIHeads):
    """Each stage starts from the boxes of the one before; boxes come from the last, scores are the mean of all.

    Ground truths join the proposals of the first stage only. The gradient of the pooled features is divided by the
    number of stages.

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        pooler: features of a fixed size for every box.
        box_head: from pooled features to a vector; every stage has one of its own.
        stages: one after the other.
        postprocess: from scored boxes to detections.
        branches: what follows the boxes, by name: masks, keypoints; trained on the ROIs of the first stage.
        append_gt: whether ground truths are added to the proposals in training.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: tuple[str, ...],
        pooler: Factory[ROIPooler],
        box_head: Factory[BoxHead],
        stages: list[CascadeStage],
        postprocess: Postprocess,
        branches: dict[str, Factory[ROIBranch]],
        append_gt: bool = True,
    ) -> None:
        super().__init__(
            feature_shapes,
            num_classes,
            in_features=in_features,
            pooler=pooler,
            postprocess=postprocess,
            append_gt=append_gt,
        )
        if not stages:
            raise ValueError("a cascade needs at least one stage, got none")
        for stage in stages:
            check_num_levels(stage.matcher, 1)
        self.loss_weights = [stage.loss_weight for stage in stages]
        self.matcher = cast(Sequence[Matcher], nn.ModuleList(stage.matcher for stage in stages))
        self.sampler = cast(Sequence[Sampler], nn.ModuleList(stage.sampler or AllSampler() for stage in stages))
        heads = [box_head(self.box_roi_pool.out_channels, self.box_roi_pool.resolution) for _ in stages]
        self.box_head = cast(Sequence[BoxHead], nn.ModuleList(heads))
        predictors = [
            stage.box_predictor(head.out_channels, num_classes) for stage, head in zip(stages, heads, strict=True)
        ]
        self.box_predictor = cast(Sequence[BoxPredictor], nn.ModuleList(predictors))
        self.add_branches(branches, feature_shapes)

    def run_head(self, stage: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """[R, C, h, w] -> class_logits [R, num_logits], deltas [R, 4K or 4] of one stage."""
        return self.box_predictor[stage](self.box_head[stage](pooled))

    def compute_losses(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[dict[str, Tensor], list[Rois]]:
        assert batch.targets is not None
        losses: dict[str, Tensor] = {}
        rois_per_stage: list[list[Rois]] = []
        boxes_per_image = candidate_boxes(proposals, batch.targets, self.append_gt)
        index_per_image = [torch.arange(len(boxes), device=boxes.device) for boxes in boxes_per_image]
        for stage, loss_weight in enumerate(self.loss_weights):
            rois = self.select_training_samples(stage, features, boxes_per_image, batch)
            rois = [replace(r, index=index[r.index]) for r, index in zip(rois, index_per_image, strict=True)]
            pooled = self.box_roi_pool(features, [r.boxes for r in rois])  # [R, C, h, w]
            pooled = ScaleGradient.apply(pooled, 1.0 / len(self.loss_weights))
            class_logits, deltas = self.run_head(stage, pooled)
            for name, loss in self.box_predictor[stage].losses(class_logits, deltas, rois).items():
                losses[f"{name}_stage{stage}"] = loss * loss_weight
            losses |= sampling_counts(rois, self.num_classes, f"_stage{stage}")
            rois_per_stage.append(rois)

            boxes_per_image = [r.boxes for r in rois]
            scored = scored_boxes(
                self.box_predictor[stage], class_logits.detach(), deltas.detach(), boxes_per_image, batch.image_sizes
            )
            moved = [scored_in_image.best_boxes() for scored_in_image in scored]
            kept = [large_mask(boxes) for boxes in moved]
            boxes_per_image = [boxes[keep] for boxes, keep in zip(moved, kept, strict=True)]
            index_per_image = [r.index[keep] for r, keep in zip(rois, kept, strict=True)]
        return losses, rois_per_stage[0]

    def select_training_samples(
        self, stage: int, features: Features, boxes_per_image: Sequence[Tensor], batch: Batch
    ) -> list[Rois]:
        """Matches the boxes that reach a stage, and samples by what that stage says of them.

        Args:
            stage: 0 is the first.
            features: maps [B, C, H, W]; only read when the matcher or the sampler asks what the head says.
            boxes_per_image: B x [N, 4].
            batch: with targets.

        Returns:
            B Rois, positives first; `index` counts within `boxes_per_image`.
        """

        def run_head(boxes_per_image: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            with unobserved(self.box_roi_pool, self.box_head[stage], self.box_predictor[stage]):
                return self.run_head(stage, self.box_roi_pool(features, boxes_per_image))

        return sample_rois(
            boxes_per_image,
            batch,
            match=self.matcher[stage],
            sampler=self.sampler[stage],
            box_predictor=self.box_predictor[stage],
            run_head=run_head,
            purpose=f"roi_heads.{stage}",
        )

    def predict(
        self, features: Features, boxes_per_image: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Runs all stages on given boxes.

        Args:
            features: maps [B, C, H, W].
            boxes_per_image: B x [r, 4].
            image_sizes: B x (h, w) that the boxes of every stage are clipped to.

        Returns:
            B ScoredBoxes: the mean score of all stages, the boxes of the last.
        """
        scored_per_stage: list[list[ScoredBoxes]] = []
        for stage in range(len(self.box_head)):
            class_logits, deltas = self.run_head(stage, self.box_roi_pool(features, boxes_per_image))
            scored_per_stage.append(
                scored_boxes(self.box_predictor[stage], class_logits, deltas, boxes_per_image, image_sizes)
            )
            boxes_per_image = [scored.best_boxes() for scored in scored_per_stage[-1]]
        return [
            replace(stages[-1], scores=torch.stack([scored.scores for scored in stages]).mean(dim=0))
            for stages in zip(*scored_per_stage, strict=True)
        ]


class ScaleGradient(torch.autograd.Function):
    """Leaves values alone and multiplies their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None
