"""Region proposal network: scores and moves anchors, and keeps the best as proposals (https://arxiv.org/abs/1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from frcnn.config import Factory
from frcnn.distributed import mean_count
from frcnn.modeling.features import check_num_levels, common_channels_and_strides
from frcnn.modeling.modes import unobserved
from frcnn.modeling.proposals import RankAnchors, SuppressProposals, TrainTest, anchors_of_image
from frcnn.modeling.roles import (
    NMS,
    PROPOSAL_GENERATORS,
    AnchorGenerator,
    BoxLoss,
    ClassLoss,
    Features,
    FeatureShapes,
    Matcher,
    ProposalGenerator,
    RPNHead,
    RPNOutput,
    Sampler,
)
from frcnn.ops.boxes import BoxCoder
from frcnn.ops.dense import flatten_map
from frcnn.structures import POSITIVE_LABEL, Batch, Candidates, Matches, Predictions, Proposals, Targets

OBJECT, NO_OBJECT = 0, 1  # the classes of a class loss with one class


@PROPOSAL_GENERATORS.register
class RegionProposalNetwork(ProposalGenerator):
    """Proposes the regions of an image that look most like objects of any class.

    Losses are computed whenever the batch has targets, in evaluation mode too.

    Args:
        feature_shapes: channels and stride of every feature map.
        in_features: names of the feature maps that carry anchors, finest first.
        anchor_generator: places the anchors.
        head: scores and moves them.
        matcher: gives each anchor a ground truth and a label.
        sampler: chooses the anchors that the losses see.
        box_coder: how deltas describe a box relative to its anchor.
        objectness_loss: loss of object against background; must have one logit.
        box_loss: loss of the sampled positives' boxes.
        nms: suppresses proposals that overlap a better one of their level.
        pre_nms_top_n: how many of each level's best anchors are decoded.
        post_nms_top_n: how many proposals of an image are kept.
        loss_normalizer: what both losses are divided by: quota is the sampler's batch_size_per_image x images
            (detectron2), sampled is the number of sampled anchors (torchvision), positive is the number of sampled
            positives (focal loss).
        min_size: proposals must be wider and higher than this, in pixels of the network's input.
        min_size_inclusive: whether a side of exactly min_size is enough, as in torchvision.
        score_thresh: proposals whose probability is below are dropped before NMS.
        nms_on: whether NMS ranks by logit (detectron2) or by probability (torchvision), which ties where it saturates.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...],
        anchor_generator: Factory[AnchorGenerator],
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
        min_size_inclusive: bool = False,
        score_thresh: float = 0.0,
        nms_on: Literal["logit", "probability"] = "logit",
    ) -> None:
        super().__init__()
        in_channels, strides = common_channels_and_strides(feature_shapes, in_features)
        self.in_features = tuple(in_features)
        self.anchor_generator = anchor_generator(strides)
        self.head = head(in_channels, self.anchor_generator.num_anchors)
        self.matcher = matcher
        check_num_levels(matcher, len(strides))
        self.sampler = sampler
        self.box_coder = box_coder
        self.objectness_loss = objectness_loss(1)
        self.box_loss = box_loss
        self.loss_normalizer = loss_normalizer
        _check_losses(self.objectness_loss, loss_normalizer, sampler)
        self.rank = RankAnchors(box_coder, pre_nms_top_n)
        self.suppress = SuppressProposals(
            nms,
            post_nms_top_n,
            min_size=min_size,
            min_size_inclusive=min_size_inclusive,
            score_thresh=score_thresh,
            nms_on=nms_on,
        )

    def forward(self, features: Features, batch: Batch) -> tuple[list[Proposals], dict[str, Tensor]]:
        maps = [features[name] for name in self.in_features]
        output = self.head(maps)
        grid_sizes = [(feature.shape[-2], feature.shape[-1]) for feature in maps]
        anchors = self.anchor_generator(grid_sizes, batch.padded_size)  # L x [N_l, 4]
        losses = {}
        if batch.targets is not None:
            matches = self.assign_targets_to_anchors(anchors, output, batch.targets, batch.image_sizes)
            losses = self.compute_loss(maps, output, anchors, matches, batch)
        return self.filter_proposals(anchors, output, batch.image_sizes), losses

    @staticmethod
    def concat_box_prediction_layers(output: RPNOutput) -> tuple[Tensor, Tensor]:
        """The dense output as two long tables, in the order image, level, y, x, anchor.

        Returns:
            objectness [B*N, 1] and deltas [B*N, 4].
        """
        objectness = torch.cat([flatten_map(level) for level in output.objectness], dim=1)  # [B, N, 1]
        num_deltas = output.num_deltas
        deltas = torch.cat([flatten_map(level, num_deltas) for level in output.deltas], dim=1)  # [B, N, 4]
        return objectness.flatten(0, 1), deltas.flatten(0, 1)

    @torch.no_grad()
    def assign_targets_to_anchors(
        self,
        anchors: Sequence[Tensor],
        output: RPNOutput,
        targets: Sequence[Targets],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Matches]:
        """Gives every anchor of every image a ground truth and a label.

        Args:
            anchors: L x [N_l, 4], or [B, N_l, 4] where images have their own.
            output: what the head says, for matchers that ask for predictions.
            targets: B Targets.
            image_sizes: B x (h, w) before padding, for matchers that measure in parts of the image.

        Returns:
            B Matches of N anchors each.
        """

        @torch.no_grad()
        def predictions(image: int) -> Predictions:
            logits, deltas = self.concat_box_prediction_layers(_one_image(output, image))
            boxes = self.box_coder.decode(torch.cat(anchors_of_image(anchors, image)), deltas)  # [N, 4]
            return Predictions(logits, boxes, self.objectness_loss.scores(logits))

        def match(image: int, target: Targets, size: tuple[int, int]) -> Matches:
            candidates = Candidates(anchors_of_image(anchors, image), partial(predictions, image), size)
            return self.matcher(candidates, target.class_agnostic())

        return list(map(match, range(len(targets)), targets, image_sizes))

    def compute_loss(
        self,
        maps: Sequence[Tensor],
        output: RPNOutput,
        anchors: Sequence[Tensor],
        matches: Sequence[Matches],
        batch: Batch,
    ) -> dict[str, Tensor]:
        """The losses of the sampled anchors. Only sampled positives are encoded, and only they have a box loss.

        Args:
            maps: L x [B, C, H, W], what the head was given.
            output: what the head says.
            anchors: L x [N_l, 4], or [B, N_l, 4] where images have their own.
            matches: B Matches of N anchors each.
            batch: with targets.
        """
        assert batch.targets is not None
        samples = [self._sample(output, anchors, matches[image], batch, image) for image in range(len(batch))]
        logits, deltas = self.head.at(maps, output, [torch.cat(sample) for sample in samples])  # [n], [n, 4]
        is_positive = torch.cat([_positives_first(positive, negative) for positive, negative in samples])  # [n]
        boxes = [torch.cat(anchors_of_image(anchors, image))[pos] for image, (pos, _) in enumerate(samples)]
        gt_boxes = [
            target.boxes[match.gt_index[positive]]
            for target, match, (positive, _) in zip(batch.targets, matches, samples, strict=True)
        ]
        objectness_loss = self.objectness_loss(logits[:, None], torch.where(is_positive, OBJECT, NO_OBJECT))  # [n]
        box_loss = self.box_loss(self.box_coder, torch.cat(boxes), deltas[is_positive], torch.cat(gt_boxes))  # [p]
        normalizer = self._normalizer(is_positive, len(batch))
        num_positive = is_positive.sum()
        return {
            "loss_objectness": objectness_loss.sum() / normalizer * self.objectness_loss.loss_weight,
            "loss_rpn_box_reg": box_loss.sum() / normalizer * self.box_loss.loss_weight,
            "rpn/num_positive": num_positive / len(batch),
            "rpn/num_negative": (len(is_positive) - num_positive) / len(batch),
        }

    @torch.no_grad()
    def _sample(
        self, output: RPNOutput, anchors: Sequence[Tensor], matches: Matches, batch: Batch, image: int
    ) -> tuple[Tensor, Tensor]:
        """Indices of the positive and of the negative anchors of one image that the losses see."""
        assert batch.targets is not None
        gt_boxes = batch.targets[image].boxes

        def hardness() -> Tensor:
            with unobserved(self.objectness_loss, self.box_loss):  # a loss may count what it is shown
                boxes = torch.cat(anchors_of_image(anchors, image))  # [N, 4]
                return self._hardness(_one_image(output, image), boxes, matches, gt_boxes)

        return self.sampler(matches, hardness, batch.draw.generator(image, "rpn", matches.labels.device))

    def _hardness(self, output: RPNOutput, anchors: Tensor, matches: Matches, gt_boxes: Tensor) -> Tensor:
        """[N]: what each anchor of one image would add to the losses; only positives are encoded here too."""
        logits, deltas = self.concat_box_prediction_layers(output)  # [N, 1], [N, 4]
        is_positive = matches.labels == POSITIVE_LABEL  # [N]
        positive = torch.nonzero(is_positive).squeeze(1)  # [p]
        objectness_loss = self.objectness_loss(logits, torch.where(is_positive, OBJECT, NO_OBJECT))  # [N]
        matched = gt_boxes[matches.gt_index[positive]]  # [p, 4]
        box_loss = self.box_loss(self.box_coder, anchors[positive], deltas[positive], matched)  # [p]
        hardness = objectness_loss * self.objectness_loss.loss_weight
        return hardness.index_add(0, positive, box_loss * self.box_loss.loss_weight)

    def _normalizer(self, is_positive: Tensor, num_images: int) -> Tensor | float:
        """What the losses are divided by; a count is the mean over the processes, and at least one in all of them."""
        if self.loss_normalizer == "quota":
            assert self.sampler.batch_size_per_image is not None
            return float(self.sampler.batch_size_per_image * num_images)
        counted = is_positive if self.loss_normalizer == "positive" else torch.ones_like(is_positive)
        return mean_count(counted.sum(), self.training)

    @torch.no_grad()
    def filter_proposals(
        self, anchors: Sequence[Tensor], output: RPNOutput, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Proposals]:
        """Ranks the anchors of each level, decodes the best, and suppresses what overlaps a better one of its level.

        Args:
            anchors: L x [N_l, 4], or [B, N_l, 4] where images have their own.
            output: what the head says.
            image_sizes: B x (h, w) before padding; proposals are clipped to it.

        Returns:
            B Proposals of at most `post_nms_top_n`, best first.
        """
        ranked = self.rank(anchors, output)
        return [self.suppress(*image)[0] for image in zip(ranked, image_sizes, strict=True)]


def _check_losses(objectness_loss: ClassLoss, loss_normalizer: str, sampler: Sampler) -> None:
    if loss_normalizer == "quota" and sampler.batch_size_per_image is None:
        raise ValueError(
            f"loss_normalizer 'quota' needs a sampler's batch_size_per_image, {type(sampler).__name__} has none: "
            "use 'sampled' or 'positive'"
        )
    check_objectness_loss(objectness_loss)


def check_objectness_loss(objectness_loss: ClassLoss) -> None:
    """Refuses a loss with a logit for the background.

    Raises:
        ValueError: with what to use instead.
    """
    if objectness_loss.num_logits != 1:
        raise ValueError(
            f"objectness_loss must have one logit per anchor, {type(objectness_loss).__name__} has "
            f"{objectness_loss.num_logits}: use BinaryCrossEntropy or another sigmoid loss"
        )


def _one_image(output: RPNOutput, image: int) -> RPNOutput:
    return RPNOutput(*([level[image : image + 1] for level in levels] for levels in output))


def _positives_first(positive: Tensor, negative: Tensor) -> Tensor:
    """[p + n] bool: what the concatenation of the two holds."""
    return torch.arange(len(positive) + len(negative), device=positive.device) < len(positive)
