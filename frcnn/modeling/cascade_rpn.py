"""Cascade RPN (https://arxiv.org/abs/1909.06720): one anchor a location, moved first and scored after."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.distributed import mean_count
from frcnn.modeling.adaptive_conv import KERNEL_SIZE, AdaptiveConv
from frcnn.modeling.features import check_num_levels
from frcnn.modeling.proposals import TrainTest
from frcnn.modeling.roles import (
    NMS,
    PROPOSAL_GENERATORS,
    AnchorGenerator,
    BoxLoss,
    ClassLoss,
    Features,
    FeatureShapes,
    Matcher,
    RPNHead,
    Sampler,
)
from frcnn.modeling.rpn import RegionProposalNetwork
from frcnn.ops.boxes import BoxCoder
from frcnn.ops.dense import flatten_map, gather_from_levels
from frcnn.structures import POSITIVE_LABEL, Batch, Candidates, Predictions, Proposals


@PROPOSAL_GENERATORS.register
class CascadeRPN(RegionProposalNetwork):
    """A region proposal network whose anchors are moved before they are scored.

    The first stage regresses the one anchor of each location. The second stage is a region proposal network on the moved
    anchors, whose features come from an adaptive convolution: its nine taps lie on the corners, the sides and the centre
    of the location's moved anchor, so that it sees what the anchor covers.

    Args:
        feature_shapes: channels and stride of every feature map.
        in_features: names of the feature maps that carry anchors, finest first.
        anchor_generator: places the anchors, one a location.
        first_matcher: gives the anchors of the first stage a ground truth; only positives are learnt from.
        first_box_coder: how the first stage's deltas describe a box relative to its anchor.
        first_box_loss: loss of the first stage's positives' boxes; the mean over the positives.
        head: scores and moves the moved anchors, from the output of the adaptive convolution.
        matcher: gives each moved anchor a ground truth and a label.
        sampler: chooses the moved anchors that the losses of the second stage see.
        box_coder: how the second stage's deltas describe a box relative to its moved anchor.
        objectness_loss: loss of object against background; must have one logit.
        box_loss: loss of the sampled positives' boxes in the second stage.
        nms: suppresses proposals that overlap a better one of their level.
        pre_nms_top_n: how many of each level's best anchors are decoded.
        post_nms_top_n: how many proposals of an image are kept.
        loss_normalizer: what the losses of the second stage are divided by: quota is the sampler's batch_size_per_image x
            images, sampled is the number of sampled anchors, positive is the number of sampled positives.
        min_size: proposals must be wider and higher than this, in pixels of the network's input.
        first_dilation: distance between the taps of the first stage's convolution.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...],
        anchor_generator: Factory[AnchorGenerator],
        first_matcher: Matcher,
        first_box_coder: BoxCoder,
        first_box_loss: BoxLoss,
        head: Factory[RPNHead],
        matcher: Matcher,
        sampler: Sampler,
        box_coder: BoxCoder,
        objectness_loss: Factory[ClassLoss],
        box_loss: BoxLoss,
        nms: NMS,
        pre_nms_top_n: TrainTest,
        post_nms_top_n: TrainTest,
        loss_normalizer: Literal["quota", "sampled", "positive"] = "quota",
        min_size: float = 0.0,
        first_dilation: int = 3,
    ) -> None:
        super().__init__(
            feature_shapes,
            in_features=in_features,
            anchor_generator=anchor_generator,
            head=head,
            matcher=matcher,
            sampler=sampler,
            box_coder=box_coder,
            objectness_loss=objectness_loss,
            box_loss=box_loss,
            nms=nms,
            pre_nms_top_n=pre_nms_top_n,
            post_nms_top_n=post_nms_top_n,
            loss_normalizer=loss_normalizer,
            min_size=min_size,
            nms_on="probability" if nms.needs_probabilities else "logit",
        )
        if self.anchor_generator.num_anchors != 1:
            raise ValueError(
                "CascadeRPN has one anchor at each location, because it learns sizes and aspect ratios, got "
                f"{self.anchor_generator.num_anchors}: give the anchor generator one size a level and one aspect ratio"
            )
        if first_dilation < 1:
            raise ValueError(f"first_dilation must be at least 1, got {first_dilation}")
        self.strides = [feature_shapes[name].stride for name in in_features]
        channels = feature_shapes[in_features[0]].channels
        self.first_matcher = first_matcher
        check_num_levels(first_matcher, len(in_features))
        self.first_box_coder = first_box_coder
        self.first_box_loss = first_box_loss
        self.first_conv = nn.Conv2d(
            channels, channels, KERNEL_SIZE, padding=first_dilation, dilation=first_dilation, bias=False
        )
        self.first_deltas = nn.Conv2d(channels, 4, 1)
        self.adaptive_conv = AdaptiveConv(channels)
        for conv in (self.first_conv, self.first_deltas):
            nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(self.first_deltas.bias)  # type: ignore[arg-type]

    def forward(self, features: Features, batch: Batch) -> tuple[list[Proposals], dict[str, Tensor]]:
        maps = [self.first_conv(features[name]).relu() for name in self.in_features]
        first_deltas = [self.first_deltas(x) for x in maps]  # L x [B, 4, H, W]
        grid_sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        anchors = self.anchor_generator(grid_sizes, batch.padded_size)  # L x [N_l, 4]
        moved = self.move_anchors(anchors, first_deltas)  # L x [B, N_l, 4]

        maps = [
            self.adaptive_conv(x, *where, stride).relu()
            for x, *where, stride in zip(maps, anchors, moved, self.strides, strict=True)
        ]
        output = self.head(maps)
        losses = {}
        if batch.targets is not None:
            losses = self.compute_first_loss(anchors, first_deltas, batch)
            matches = self.assign_targets_to_anchors(moved, output, batch.targets, batch.image_sizes)
            losses |= self.compute_loss(maps, output, moved, matches, batch)
        return self.filter_proposals(moved, output, batch.image_sizes), losses

    @torch.no_grad()
    def move_anchors(self, anchors: Sequence[Tensor], first_deltas: Sequence[Tensor]) -> list[Tensor]:
        """The anchors of the second stage, without gradient.

        Args:
            anchors: L x [N_l, 4].
            first_deltas: L x [B, 4, H, W].

        Returns:
            L x [B, N_l, 4].
        """
        return [
            self.first_box_coder.decode(level.expand(len(deltas), -1, -1), flatten_map(deltas, 4))
            for level, deltas in zip(anchors, first_deltas, strict=True)
        ]

    def compute_first_loss(
        self, anchors: Sequence[Tensor], first_deltas: Sequence[Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        """The box loss of the first stage, the mean over the positive anchors of all processes.

        Args:
            anchors: L x [N_l, 4].
            first_deltas: L x [B, 4, H, W].
            batch: with targets.
        """
        assert batch.targets is not None
        together = torch.cat(list(anchors))  # [N, 4]
        positives, boxes, gt_boxes = [], [], []
        for image, (targets, size) in enumerate(zip(batch.targets, batch.image_sizes, strict=True)):
            predictions = partial(self._first_predictions, together, [level[image] for level in first_deltas])
            with torch.no_grad():
                matches = self.first_matcher(Candidates(anchors, predictions, size), targets.class_agnostic())
            positive = torch.nonzero(matches.labels == POSITIVE_LABEL).squeeze(1)  # [p]
            positives.append(positive)
            boxes.append(together[positive])
            gt_boxes.append(targets.boxes[matches.gt_index[positive]])
        index = torch.cat(positives)  # [P]
        image_index = torch.cat([torch.full_like(positive, image) for image, positive in enumerate(positives)])
        deltas = gather_from_levels(first_deltas, 4, image_index, index)  # [P, 4]
        loss = self.first_box_loss(self.first_box_coder, torch.cat(boxes), deltas, torch.cat(gt_boxes))  # [P]
        count = torch.full((), float(len(index)), device=index.device)  # no copy, which waits
        return {
            "loss_rpn_first_box_reg": loss.sum() / mean_count(count, self.training) * self.first_box_loss.loss_weight,
            "rpn/num_first_positive": count / len(batch),
        }

    @torch.no_grad()
    def _first_predictions(self, anchors: Tensor, first_deltas: Sequence[Tensor]) -> Predictions:
        """Where the first stage, L x [4, H, W], moves the anchors [N, 4] of one image; it scores nothing: logits are 0."""
        deltas = torch.cat([flatten_map(level[None], 4)[0] for level in first_deltas])  # [N, 4]
        logits = deltas.new_zeros(len(deltas), 1)
        return Predictions(logits, self.first_box_coder.decode(anchors, deltas), self.objectness_loss.scores(logits))
