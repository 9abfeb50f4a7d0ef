"""An anchor-free region proposal network after FCOS (https://arxiv.org/abs/1904.01355)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.config import Factory
from frcnn.distributed import mean_count
from frcnn.modeling.anchors import GridAnchorGenerator
from frcnn.modeling.fcos_head import FCOSHead, FCOSOutput, SideCoder, fuse
from frcnn.modeling.features import check_num_levels, common_channels_and_strides
from frcnn.modeling.layers import NormName
from frcnn.modeling.matchers.fcos import centerness, distances
from frcnn.modeling.proposals import RankAnchors, SuppressProposals, TrainTest
from frcnn.modeling.roles import (
    NMS,
    PROPOSAL_GENERATORS,
    BoxLoss,
    ClassLoss,
    Features,
    FeatureShapes,
    Matcher,
    ProposalGenerator,
    RPNOutput,
)
from frcnn.modeling.rpn import NO_OBJECT, OBJECT, check_objectness_loss
from frcnn.ops.boxes import paired_iou
from frcnn.ops.dense import flatten_map
from frcnn.structures import DISCARD_LABEL, POSITIVE_LABEL, Batch, Candidates, Matches, Predictions, Proposals

QualityName = Literal["centerness", "iou"]


@PROPOSAL_GENERATORS.register
class FCOSProposalGenerator(ProposalGenerator):
    """Proposes, for every location of the feature maps, the box that its four distances to left, top, right and bottom make.

    No anchors have to be chosen. Proposals are ranked by the geometric mean of objectness and quality, so that boxes from
    the edge of an object give way to those from its middle. Losses are computed whenever the batch has targets.

    Args:
        feature_shapes: channels and stride of every feature map.
        in_features: names of the feature maps, finest first.
        matcher: gives each location a ground truth and a label; FCOSMatcher is the paper's.
        objectness_loss: loss of object against background over all locations, focal as a rule; must have one logit.
        box_loss: loss of the positives' boxes, each weighted by its centerness; of the IoU family as a rule.
        nms: suppresses proposals that overlap a better one of their level.
        pre_nms_top_n: how many of each level's best locations become boxes.
        post_nms_top_n: how many proposals of an image are kept.
        quality: what the third output learns: centerness (how near the location is to the middle of its object) or iou
            (how well its box fits).
        quality_loss_weight: factor of the loss of the third output.
        num_convs: how many 3x3 convolutions come before the outputs, for scores and for boxes each.
        norm: norm layer behind each of them, or null for none.
        prior_probability: of an object at every location before training.
        min_size: proposals must be wider and higher than this, in pixels of the network's input.
        score_thresh: proposals whose probability is below are dropped before NMS.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...],
        matcher: Matcher,
        objectness_loss: Factory[ClassLoss],
        box_loss: BoxLoss,
        nms: NMS,
        pre_nms_top_n: TrainTest,
        post_nms_top_n: TrainTest,
        quality: QualityName = "centerness",
        quality_loss_weight: float = 1.0,
        num_convs: int = 4,
        norm: NormName | None = "GN",
        prior_probability: float = 0.01,
        min_size: float = 0.0,
        score_thresh: float = 0.0,
    ) -> None:
        super().__init__()
        if quality_loss_weight < 0:
            raise ValueError(f"quality_loss_weight must be at least 0, got {quality_loss_weight}")
        channels, strides = common_channels_and_strides(feature_shapes, in_features)
        self.in_features = tuple(in_features)
        sizes = tuple((float(stride),) for stride in strides)
        self.cells = GridAnchorGenerator(strides, sizes=sizes, aspect_ratios=(1.0,), offset=0.5)
        self.head = FCOSHead(
            channels, len(strides), num_convs=num_convs, norm=norm, prior_probability=prior_probability
        )
        self.matcher = matcher
        check_num_levels(matcher, len(strides))
        self.objectness_loss = objectness_loss(1)
        check_objectness_loss(self.objectness_loss)
        self.box_coder = SideCoder()
        self.box_loss = box_loss
        self.quality = quality
        self.quality_loss_weight = quality_loss_weight
        self.rank = RankAnchors(self.box_coder, pre_nms_top_n)
        self.suppress = SuppressProposals(
            nms,
            post_nms_top_n,
            min_size=min_size,
            min_size_inclusive=False,
            score_thresh=score_thresh,
            nms_on="probability" if nms.needs_probabilities else "logit",
        )

    def forward(self, features: Features, batch: Batch) -> tuple[list[Proposals], dict[str, Tensor]]:
        maps = [features[name] for name in self.in_features]
        output = self.head(maps)
        cells = self.cells([(x.shape[-2], x.shape[-1]) for x in maps], batch.padded_size)  # L x [N_l, 4]
        losses = {}
        if batch.targets is not None:
            losses = self.compute_loss(cells, output, self.assign_targets_to_locations(cells, output, batch), batch)
        return self.filter_proposals(cells, output, batch.image_sizes), losses

    @torch.no_grad()
    def assign_targets_to_locations(self, cells: Sequence[Tensor], output: FCOSOutput, batch: Batch) -> list[Matches]:
        """Gives every location of every image a ground truth and a label.

        Args:
            cells: L x [N_l, 4], around the locations, as wide as the stride.
            output: what the head says, for matchers that ask for predictions.
            batch: with targets.

        Returns:
            B Matches of N locations each.
        """
        assert batch.targets is not None

        @torch.no_grad()
        def predictions(image: int) -> Predictions:
            logits, sides = (_as_table(levels)[image] for levels in (output.objectness, output.sides))  # [N, 1], [N, 4]
            boxes = self.box_coder.decode(torch.cat(list(cells)), sides)  # [N, 4]
            return Predictions(logits, boxes, self.objectness_loss.scores(logits))

        return [
            self.matcher(Candidates(cells, partial(predictions, image), size), target.class_agnostic())
            for image, (target, size) in enumerate(zip(batch.targets, batch.image_sizes, strict=True))
        ]

    def compute_loss(
        self, cells: Sequence[Tensor], output: FCOSOutput, matches: Sequence[Matches], batch: Batch
    ) -> dict[str, Tensor]:
        """Objectness of all locations that are not discarded; boxes and quality of the positives.

        Args:
            cells: L x [N_l, 4].
            output: what the head says.
            matches: B Matches of N locations each.
            batch: with targets.
        """
        assert batch.targets is not None
        labels = torch.stack([match.labels for match in matches])  # [B, N]
        is_positive = labels == POSITIVE_LABEL
        counted = labels != DISCARD_LABEL
        logits = _as_table(output.objectness)[counted]  # [n, 1]
        objectness_loss = self.objectness_loss(logits, torch.where(is_positive[counted], OBJECT, NO_OBJECT))  # [n]

        boxes = torch.cat(list(cells)).expand(len(batch), -1, -1)[is_positive]  # [P, 4]
        sides = _as_table(output.sides)[is_positive]  # [P, 4]
        gt_boxes = torch.cat(
            [
                target.boxes[match.gt_index[positive]]
                for target, match, positive in zip(batch.targets, matches, is_positive, strict=True)
            ]
        ).float()  # [P, 4]
        weight = _centerness_of(boxes, gt_boxes)  # [P]
        box_loss = self.box_loss(self.box_coder, boxes, sides, gt_boxes) * weight
        fit = weight
        if self.quality == "iou":
            fit = paired_iou(self.box_coder.decode(boxes, sides.detach()), gt_boxes)
        quality = _as_table(output.quality)[is_positive].squeeze(1)  # [P]
        quality_loss = F.binary_cross_entropy_with_logits(quality, fit, reduction="none")

        num_positive = mean_count(is_positive.sum(), self.training)
        total_weight = mean_count(weight.sum(), self.training, at_least=1e-6)
        return {
            "loss_objectness": objectness_loss.sum() / num_positive * self.objectness_loss.loss_weight,
            "loss_rpn_box_reg": box_loss.sum() / total_weight * self.box_loss.loss_weight,
            "loss_rpn_quality": quality_loss.sum() / num_positive * self.quality_loss_weight,
            "rpn/num_positive": is_positive.sum() / len(batch),
            "rpn/num_negative": (counted & ~is_positive).sum() / len(batch),
        }

    @torch.no_grad()
    def filter_proposals(
        self, cells: Sequence[Tensor], output: FCOSOutput, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Proposals]:
        """Ranks the locations of each level, makes boxes of the best, and suppresses what overlaps a better one.

        Args:
            cells: L x [N_l, 4].
            output: what the head says.
            image_sizes: B x (h, w) before padding; proposals are clipped to it.

        Returns:
            B Proposals of at most `post_nms_top_n`, best first; objectness is the logit of the geometric mean.
        """
        fused = list(map(fuse, output.objectness, output.quality))
        ranked = self.rank(cells, RPNOutput(fused, output.sides))
        return [self.suppress(*image)[0] for image in zip(ranked, image_sizes, strict=True)]


def _centerness_of(cells: Tensor, gt_boxes: Tensor) -> Tensor:
    """[P]: of the cells' centres in their ground truths; 0 for a centre outside, which other matchers may allow."""
    centers = (cells[:, :2] + cells[:, 2:]) / 2
    return centerness(distances(centers, gt_boxes).clamp(min=1e-6))


def _as_table(levels: Sequence[Tensor]) -> Tensor:
    """L x [B, n, H, W] -> [B, N, n] float32, in the order level, y, x."""
    return torch.cat([flatten_map(level, level.shape[1]) for level in levels], dim=1).float()
