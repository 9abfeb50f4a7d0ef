"""Rotated region proposals (https://arxiv.org/abs/1703.01086): anchors of several angles, their matcher, head and NMS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from frcnn.config import Factory, import_file
from frcnn.modeling import roles
from frcnn.modeling.anchors import GridAnchorGenerator
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.proposals import SuppressProposals, TrainTest
from frcnn.modeling.roles import BoxLoss, ClassLoss, FeatureShapes, RPNHead, Sampler
from frcnn.modeling.rpn import RegionProposalNetwork
from frcnn.modeling.rpn_head import ConvRPNHead
from frcnn.structures import Proposals

ops = import_file(Path(__file__).with_name("rotated_boxes.py"))
RotatedBoxCoder = ops.RotatedBoxCoder


@roles.ANCHOR_GENERATORS.register
class RotatedAnchorGenerator(roles.AnchorGenerator):
    """Anchors of each size, aspect ratio and angle at every location of every feature level.

    Args:
        strides: the stride of each level in pixels.
        sizes: for each level, square roots of the anchors' areas in pixels.
        aspect_ratios: heights over widths; one list for all levels, or one list for each level.
        angles: degrees counter-clockwise. A ratio and its inverse at right angles to each other are one region, so half a
            turn of angles needs ratios up to 1 only.
        offset: centre of the first anchor in strides from the image's corner; 0.5 is the middle of the first cell.
    """

    box_dim = 5
    angles: Tensor

    def __init__(
        self,
        strides: Sequence[int],
        *,
        sizes: tuple[tuple[float, ...], ...],
        aspect_ratios: tuple[float, ...] | tuple[tuple[float, ...], ...],
        angles: tuple[float, ...],
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        if not angles or not all(-180 <= angle < 180 for angle in angles):
            raise ValueError(f"angles must be one or more degrees in [-180, 180), got {list(angles)}")
        self.straight = GridAnchorGenerator(strides, sizes=sizes, aspect_ratios=aspect_ratios, offset=offset)
        self.num_anchors = self.straight.num_anchors * len(angles)
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.float32), persistent=False)

    def forward(self, grid_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]) -> list[Tensor]:
        """L x [height * width * A, 5], in the order y, x, anchor; the anchors of a place by size, ratio, angle."""
        return [self._turned(boxes) for boxes in self.straight(grid_sizes, padded_size)]

    def _turned(self, boxes: Tensor) -> Tensor:
        """[n, 4] x1 y1 x2 y2 -> [n * number of angles, 5]."""
        low, high = boxes[:, :2], boxes[:, 2:]
        straight = torch.cat(((low + high) / 2, high - low), dim=1)  # [n, 4] cx cy w h
        straight = straight[:, None].expand(-1, len(self.angles), -1)
        angles = self.angles.expand(len(boxes), -1)[..., None]
        return torch.cat((straight, angles), dim=-1).flatten(0, 1)


@roles.MATCHERS.register
class RotatedIoUMatcher(IoUMatcher):
    """Matches each candidate with the ground truth it overlaps most, and labels it by two thresholds on the rotated IoU.

    Args:
        high_threshold: IoU from which a candidate is positive.
        low_threshold: IoU below which a candidate is negative.
        allow_low_quality_matches: make the best candidates of every ground truth positive too, whatever their IoU is
            above 0.
    """

    box_dim = 5

    def overlaps(self, gt_boxes: Tensor, boxes: Tensor) -> Iterator[tuple[int, Tensor]]:
        return ops.rotated_iou_chunks(gt_boxes, boxes)


@roles.NMS_METHODS.register
class RotatedNMS(roles.NMS):
    """Greedy non-maximum suppression by the rotated IoU: a box goes if it overlaps a better one of its class that stays.

    Args:
        iou_threshold: the largest IoU with a better box that is let through.
        class_agnostic: whether a better box of any class (in a proposal generator: of any level) suppresses.
    """

    box_dim = 5

    def __init__(self, *, iou_threshold: float, class_agnostic: bool = False) -> None:
        super().__init__()
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
        self.iou_threshold = iou_threshold
        self.class_agnostic = class_agnostic

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        order = scores.float().argsort(descending=True, stable=True)
        groups = torch.zeros_like(classes) if self.class_agnostic else classes
        index = order[self._kept(boxes[order].float(), groups[order])]
        return index, scores[index]

    def _kept(self, boxes: Tensor, groups: Tensor) -> Tensor:
        """[n] bool of boxes in the order of their scores.

        Every round asks again which boxes overlap a better one that stays. After k rounds the first k boxes are judged for
        good, so the rounds end, and as a rule after a few: as many as boxes suppress each other in a row.
        """
        together = ops.circles_meet(boxes[:, None], boxes) & (groups[:, None] == groups)  # [n, n]
        better, worse = torch.nonzero(together.triu(diagonal=1), as_tuple=True)  # [m] pairs
        over = ops.iou_of_pairs(boxes, boxes, better, worse) > self.iou_threshold
        better, worse = better[over], worse[over]
        kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        while True:
            judged = torch.ones_like(kept)
            judged[worse[kept[better]]] = False
            if torch.equal(judged, kept):
                return kept
            kept = judged


@roles.RPN_HEADS.register
class RotatedRPNHead(ConvRPNHead):
    """Scores every anchor and moves it by five deltas, with a small stack of 3x3 convolutions shared by all levels.

    Args:
        in_channels: channels of every feature level.
        num_anchors: anchors per location.
        num_convs: how many 3x3 convolutions come before the two 1x1 outputs.
        prior_probability: of an object at every anchor before training.
    """

    box_dim = 5

    def __init__(
        self, in_channels: int, num_anchors: int, *, num_convs: int = 1, prior_probability: float = 0.5
    ) -> None:
        super().__init__(in_channels, num_anchors, num_convs=num_convs, prior_probability=prior_probability)
        self.deltas = nn.Conv2d(in_channels, RotatedBoxCoder.num_deltas * num_anchors, 1)
        nn.init.normal_(self.deltas.weight, std=0.01)
        nn.init.zeros_(self.deltas.bias)


@roles.PROPOSAL_GENERATORS.register
class RotatedRPN(RegionProposalNetwork):
    """Proposes rotated regions that look most like objects of any class (https://arxiv.org/abs/1703.01086).

    Args:
        feature_shapes: channels and stride of every feature map.
        in_features: names of the feature maps that carry anchors, finest first.
        anchor_generator: places the anchors; RotatedAnchorGenerator.
        head: scores and moves them; RotatedRPNHead.
        matcher: gives each anchor a ground truth and a label; RotatedIoUMatcher.
        sampler: chooses the anchors that the losses see.
        box_coder: how deltas describe a rotated box relative to its anchor.
        objectness_loss: loss of object against background; must have one logit.
        box_loss: loss of the sampled positives' boxes, one that compares deltas.
        nms: suppresses proposals that overlap a better one of their level; RotatedNMS.
        pre_nms_top_n: how many of each level's best anchors are decoded.
        post_nms_top_n: how many proposals of an image are kept.
        min_size: both sides of a proposal must be longer than this, in pixels of the network's input.
    """

    box_dim = 5

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...],
        anchor_generator: Factory[roles.AnchorGenerator],
        head: Factory[RPNHead],
        matcher: roles.Matcher,
        sampler: Sampler,
        box_coder: RotatedBoxCoder,
        objectness_loss: Factory[ClassLoss],
        box_loss: BoxLoss,
        nms: roles.NMS,
        pre_nms_top_n: TrainTest,
        post_nms_top_n: TrainTest,
        min_size: float = 0.0,
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
        )
        self.suppress = SuppressRotatedProposals(
            nms, post_nms_top_n, min_size=min_size, min_size_inclusive=False, score_thresh=0.0, nms_on="logit"
        )


class SuppressRotatedProposals(SuppressProposals):
    """Drops what is no proposal, and suppresses what overlaps a better one; only boxes that are hardly turned are clipped."""

    def forward(self, ranked: Proposals, image_size: tuple[int, int]) -> tuple[Proposals, Tensor]:
        """The proposals of one image, best first, and their rows [p] in `ranked`."""
        boxes = ops.clip_straight(ranked.boxes, image_size)  # [P, 5]
        finite = boxes.isfinite().all(dim=1) & ranked.objectness.isfinite()
        kept = torch.nonzero(finite & ops.large_rotated_mask(boxes, self.min_size)).squeeze(1)
        index, _ = self.nms(boxes[kept], ranked.objectness[kept], ranked.level[kept])
        row = kept[index[: self.top_n.at(self.training)]]  # [p]
        return Proposals(boxes[row], ranked.objectness[row], ranked.level[row], ranked.index[row]), row
