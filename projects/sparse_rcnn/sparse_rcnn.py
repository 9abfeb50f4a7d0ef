"""Sparse R-CNN (https://arxiv.org/abs/2011.12450): rounds that refine learned proposals; no anchors, no NMS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import Factory, import_file
from frcnn.distributed import mean_count
from frcnn.errors import UserError
from frcnn.modeling import roles
from frcnn.modeling.box_predictors import concatenate
from frcnn.modeling.features import check_num_levels, shapes_of
from frcnn.modeling.postprocess import Postprocess, SelectDetections
from frcnn.modeling.roi_sampling import label_candidates, sampling_counts
from frcnn.modeling.roles import BoxLoss, ClassLoss, Features, FeatureShapes, Matcher, ROIPooler
from frcnn.ops.boxes import BoxCoder, clip_boxes
from frcnn.structures import Batch, Candidates, Detections, Predictions, Proposals, Rois, ScoredBoxes, Targets

LearnedRegions = import_file(Path(__file__).with_name("learned_proposals.py")).LearnedRegions


class DynamicConv(nn.Module):
    """Two 1x1 convolutions over the cells of a box, with weights made from its proposal feature (section 3.3).

    Args:
        channels: width C of both features.
        inner_channels: width D between the two convolutions.
        resolution: cells along each side of a box.
    """

    def __init__(self, channels: int, inner_channels: int, resolution: int) -> None:
        super().__init__()
        self.shape = (channels, inner_channels)
        self.make_weights = nn.Linear(channels, 2 * channels * inner_channels)
        self.norm1 = nn.LayerNorm(inner_channels)
        self.norm2 = nn.LayerNorm(channels)
        self.out = nn.Linear(channels * resolution**2, channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, proposal_features: Tensor, roi_features: Tensor) -> Tensor:
        """[R, C], [R, C, h, w] -> [R, C]."""
        first, second = self.make_weights(proposal_features).chunk(2, dim=1)  # [R, C D] each
        cells = roi_features.flatten(2).transpose(1, 2)  # [R, h w, C]
        cells = F.relu(self.norm1(cells @ first.unflatten(1, self.shape)))  # [R, h w, D]
        cells = F.relu(self.norm2(cells @ second.unflatten(1, self.shape[::-1])))  # [R, h w, C]
        return F.relu(self.norm3(self.out(cells.flatten(1))))


@dataclass(frozen=True)
class StageOptions:
    """How large a stage is.

    Args:
        num_heads: of the attention between proposals; divides the width of the maps.
        inner_channels: width between the two dynamic convolutions.
        feedforward_channels: width of the layers behind them.
    """

    num_heads: int = 8
    inner_channels: int = 64
    feedforward_channels: int = 2048

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")


class RefinementStage(nn.Module):
    """One round: the proposals of an image look at each other, then each at its box, then they answer.

    Args:
        channels: width C of features.
        num_logits: of the class loss.
        resolution: cells along each side of a box.
        options: how large it is.
    """

    def __init__(self, channels: int, num_logits: int, resolution: int, options: StageOptions) -> None:
        super().__init__()
        if channels % options.num_heads:
            raise ValueError(f"num_heads must divide the {channels} channels of the maps, got {options.num_heads}")
        hidden = options.feedforward_channels
        self.attention = nn.MultiheadAttention(channels, options.num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.dynamic_conv = DynamicConv(channels, options.inner_channels, resolution)
        self.dynamic_norm = nn.LayerNorm(channels)
        self.feedforward = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.feedforward_norm = nn.LayerNorm(channels)
        self.cls_tower = tower(channels, num_layers=1)
        self.reg_tower = tower(channels, num_layers=3)
        self.cls_score = nn.Linear(channels, num_logits)
        self.bbox_pred = nn.Linear(channels, 4)

    def forward(self, proposal_features: Tensor, roi_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, P, C], [B P, C, h, w] -> class_logits [B, P, num_logits], deltas [B, P, 4], proposal features [B, P, C]."""
        x = proposal_features
        x = self.attention_norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = self.dynamic_norm(x + self.dynamic_conv(x.flatten(0, 1), roi_features).view_as(x))
        x = self.feedforward_norm(x + self.feedforward(x))
        return self.cls_score(self.cls_tower(x)).float(), self.bbox_pred(self.reg_tower(x)).float(), x


class Refined(NamedTuple):
    """What one stage says of the proposals of a batch.

    Args:
        boxes: [B, P, 4] that it was given.
        class_logits: [B, P, num_logits].
        deltas: [B, P, 4].
        moved: [B, P, 4], where the deltas put the boxes.
    """

    boxes: Tensor
    class_logits: Tensor
    deltas: Tensor
    moved: Tensor


@roles.ROI_HEADS.register
class SparseROIHeads(roles.ROIHeads):
    """Refines features and boxes of learned proposals stage by stage; each stage is matched with the objects anew.

    The detections are those of the last stage. Losses are divided by the number of objects in the batch.

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        pooler: features of a fixed size for every box.
        matcher: pairs proposals with objects by what the stage says of them, HungarianMatcher as a rule.
        class_loss: of all proposals; it also turns logits into scores.
        box_loss: of the matched proposals, GIoULoss as a rule.
        box_coder: how deltas describe boxes.
        postprocess: from scored boxes to detections.
        stage: how large every stage is.
        num_stages: how many rounds.
        l1_weight: factor of the L1 distance of the matched boxes, their sides counted in parts of the image.
        prior_probability: of each class before training, set by the biases.
    """

    proposal_type = LearnedRegions

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: tuple[str, ...],
        pooler: Factory[ROIPooler],
        matcher: Matcher,
        class_loss: Factory[ClassLoss],
        box_loss: BoxLoss,
        box_coder: BoxCoder,
        postprocess: Postprocess,
        stage: StageOptions,
        num_stages: int = 6,
        l1_weight: float = 5.0,
        prior_probability: float = 0.01,
    ) -> None:
        super().__init__()
        if num_stages < 1:
            raise ValueError(f"num_stages must be at least 1, got {num_stages}")
        if l1_weight < 0:
            raise ValueError(f"l1_weight must be at least 0, got {l1_weight}")
        if not 0 < prior_probability < 1:
            raise ValueError(f"prior_probability must be between 0 and 1, got {prior_probability}")
        check_num_levels(matcher, 1)
        self.num_classes = num_classes
        self.box_roi_pool = pooler(dict(zip(in_features, shapes_of(in_features, feature_shapes), strict=True)))
        self.matcher = matcher
        self.class_loss = class_loss(num_classes)
        self.box_loss = box_loss
        self.box_coder = box_coder
        self.postprocess = SelectDetections(postprocess)
        self.l1_weight = l1_weight
        channels, resolution = self.box_roi_pool.out_channels, self.box_roi_pool.resolution
        stages = [RefinementStage(channels, self.class_loss.num_logits, resolution, stage) for _ in range(num_stages)]
        self.stages = cast(Sequence[RefinementStage], nn.ModuleList(stages))
        log_odds = math.log(prior_probability / (1 - prior_probability))
        for built in stages:
            for parameter in built.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
            nn.init.constant_(built.cls_score.bias[:num_classes], log_odds)

    def forward(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[list[Detections] | None, dict[str, Tensor]]:
        stages = self.refine(features, proposals)
        losses: dict[str, Tensor] = {}
        if batch.targets is not None:
            for number, refined in enumerate(stages):
                of_stage = self.losses(refined, batch)
                losses |= {f"{name}_stage{number}": value for name, value in of_stage.items()}
        elif self.training:
            raise ValueError("ROI heads in training mode need targets; call eval() on the model to predict")
        if self.training:
            return None, losses
        return [self.postprocess(scored) for scored in self.scored_boxes(stages[-1], batch.image_sizes)], losses

    def refine(self, features: Features, proposals: Sequence[Proposals]) -> list[Refined]:
        """Runs all stages; each starts from the features and, without gradient, from the boxes of the one before.

        Args:
            features: maps [B, C, H, W].
            proposals: B times P LearnedRegions.
        """
        proposal_features = torch.stack([p.features for p in cast(Sequence[Any], proposals)])  # [B, P, C]
        boxes = torch.stack([p.boxes for p in proposals])  # [B, P, 4], learned through the losses of the first stage
        stages = []
        for stage in self.stages:
            pooled = self.box_roi_pool(features, boxes.detach().unbind())  # [B P, C, h, w]
            class_logits, deltas, proposal_features = stage(proposal_features, pooled)
            stages.append(Refined(boxes, class_logits, deltas, self.box_coder.decode(boxes, deltas)))
            boxes = stages[-1].moved.detach()
        return stages

    def losses(self, refined: Refined, batch: Batch) -> dict[str, Tensor]:
        """loss_classifier of all proposals, loss_box_reg and loss_box_l1 of the matched ones, of one stage."""
        assert batch.targets is not None
        rois_per_image = self.assign_targets_to_proposals(refined, batch)
        rois = concatenate(rois_per_image)
        positive = torch.where(rois.classes < self.num_classes)[0]  # [n]
        deltas, moved = refined.deltas.flatten(0, 1)[positive], refined.moved.flatten(0, 1)[positive]  # [n, 4] each
        gt_boxes = rois.gt_boxes[positive]  # [n, 4]
        box_losses = self.box_loss(self.box_coder, rois.boxes[positive], deltas, gt_boxes)  # [n]
        sides = torch.stack([sides_of(size, moved) for size in batch.image_sizes])  # [B, 4]
        sides = sides.repeat_interleave(refined.boxes.shape[1], dim=0)[positive]  # [n, 4]
        num_objects = moved.new_tensor(float(sum(map(len, batch.targets))))
        normalizer = mean_count(num_objects, self.training)
        class_losses = self.class_loss(refined.class_logits.flatten(0, 1), rois.classes)  # [B P]
        return {
            "loss_classifier": class_losses.sum() / normalizer * self.class_loss.loss_weight,
            "loss_box_reg": box_losses.sum() / normalizer * self.box_loss.loss_weight,
            "loss_box_l1": ((moved - gt_boxes) / sides).abs().sum() / normalizer * self.l1_weight,
            **sampling_counts(rois_per_image, self.num_classes),
        }

    def assign_targets_to_proposals(self, refined: Refined, batch: Batch) -> list[Rois]:
        """Every proposal of every image, with the class and the box of the object it was paired with."""
        assert batch.targets is not None
        scores = self.class_loss.scores(refined.class_logits.detach())  # [B, P, K]
        said = map(Predictions, refined.class_logits.detach(), refined.moved.detach(), scores)
        return list(map(self.assign_in_image, refined.boxes, said, batch.targets, batch.image_sizes))

    def assign_in_image(self, boxes: Tensor, said: Predictions, targets: Targets, image_size: tuple[int, int]) -> Rois:
        """The same for one image: boxes [P, 4], what a stage says of them, and the objects."""
        matches = self.matcher(Candidates([boxes.detach()], lambda: said, image_size), targets)
        return label_candidates(boxes, matches, targets, self.num_classes)

    def scored_boxes(self, refined: Refined, image_sizes: Sequence[tuple[int, int]]) -> list[ScoredBoxes]:
        """B ScoredBoxes of one stage, clipped to the images; all classes share a box."""
        scores = self.class_loss.scores(refined.class_logits)  # [B, P, K]
        return [
            ScoredBoxes(clip_boxes(moved, size)[:, None].expand(-1, self.num_classes, 4), scores_in_image)
            for moved, size, scores_in_image in zip(refined.moved, image_sizes, scores, strict=True)
        ]

    def predict(
        self, features: Features, boxes_per_image: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Not possible: a box without a learned feature means nothing to these heads.

        Raises:
            UserError: always.
        """
        raise UserError("SparseROIHeads cannot score given boxes: every box needs the learned feature of its proposal")


@roles.NMS_METHODS.register
class KeepAll(roles.NMS):
    """Suppresses nothing: one-to-one matching has taught the detector not to repeat itself."""

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        scores, index = scores.sort(descending=True, stable=True)
        return index, scores


def tower(channels: int, num_layers: int) -> nn.Sequential:
    """Linear layers, each with a norm and a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(num_layers):
        layers += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()]
    return nn.Sequential(*layers)


def sides_of(image_size: tuple[int, int], like: Tensor) -> Tensor:
    """(h, w) -> [4] w, h, w, h, which turn parts of the image into pixels."""
    height, width = image_size
    return like.new_tensor([width, height, width, height])
