"""Dynamic R-CNN (https://arxiv.org/abs/2004.06002): as proposals get better, training asks more of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.distributed import concatenated_over_processes, mean_over_processes, world_size
from frcnn.modeling.losses.dynamic import DynamicSmoothL1Loss
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.roles import (
    ROI_HEADS,
    BoxHead,
    BoxPredictor,
    Features,
    FeatureShapes,
    ROIBranch,
    ROIPooler,
    Sampler,
)
from frcnn.ops.boxes import iou_chunks
from frcnn.structures import BACKGROUND_LABEL, POSITIVE_LABEL, Batch, Candidates, Matches, Proposals, Rois, Targets

NOTHING_SEEN = -1.0


class ProposalQuality(nn.Module):
    """The IoU a proposal must have to be positive, and what has been seen since it was last set.

    All of it travels in checkpoints, so that a resumed run goes on between two updates as if it had never stopped.

    Args:
        initial_iou: the threshold at the start; it never falls below.
        update_every: how many batches are seen before an update.
    """

    iou_threshold: Tensor
    ious: Tensor
    errors: Tensor

    def __init__(self, *, initial_iou: float, update_every: int) -> None:
        super().__init__()
        self.initial_iou = initial_iou
        self.update_every = update_every
        self.register_buffer("iou_threshold", torch.tensor(initial_iou))
        self.register_buffer("ious", torch.full((update_every,), NOTHING_SEEN))  # one of each batch
        self.register_buffer("errors", torch.full((update_every,), NOTHING_SEEN))
        # A plain number: the host needs it in every step, and would wait for the device to read a buffer.
        self.num_seen = 0

    def get_extra_state(self) -> Tensor:
        """How many batches were seen since the last update, for checkpoints."""
        return torch.tensor(self.num_seen)

    def set_extra_state(self, state: Tensor) -> None:
        self.num_seen = int(state)

    @torch.no_grad()
    def see(self, iou: Tensor, error: Tensor, box_loss: DynamicSmoothL1Loss) -> None:
        """Remembers the numbers of one batch, and updates threshold and beta when enough were seen.

        Args:
            iou: the K-th best IoU of its proposals, the mean over its images; NOTHING_SEEN where no image has objects.
            error: a small regression error of its positives; NOTHING_SEEN where there are none.
            box_loss: whose beta is set.
        """
        self.ious[self.num_seen] = iou
        self.errors[self.num_seen] = error
        self.num_seen += 1
        if self.num_seen < self.update_every:
            return
        self.num_seen = 0
        ious, errors = (seen[seen != NOTHING_SEEN] for seen in (self.ious, self.errors))
        if len(ious):
            self.iou_threshold.copy_(ious.mean().clamp(min=self.initial_iou))
        median = errors.quantile(0.5) if len(errors) else errors.new_tensor(0.0)
        if median > 0:  # without any error to go by, beta stays
            box_loss.beta.copy_(median.clamp(max=box_loss.initial_beta))


@ROI_HEADS.register
class DynamicROIHeads(StandardROIHeads):
    """Standard ROI heads whose IoU threshold rises, and whose beta falls, with the quality of the proposals.

    Every `update_every` batches the threshold becomes the mean of the `iou_top_k`-th best IoUs of the images, at least
    `initial_iou`, and beta the median of the batches' small regression errors (mean of |dx| and |dy|, of which a batch
    has as many smaller ones as `error_top_k` for each image), at most the loss's `initial_beta`. Both are taken over all
    processes.

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        sampler: decides which proposals are trained on.
        pooler: features of a fixed size for every box.
        box_head: from pooled features to a vector.
        box_predictor: from the vector to classes and boxes; its box_loss must be a DynamicSmoothL1Loss.
        postprocess: from scored boxes to detections.
        branches: what follows the boxes, by name: masks, keypoints.
        append_gt: whether ground truths are added to the proposals in training.
        initial_iou: IoU from which a proposal is positive at the start, and at least ever after.
        iou_top_k: which best IoU of an image's proposals its quality is read from.
        error_top_k: which smallest regression error, for each image of a batch, its error is read from. Ground truths that
            append_gt added are right without any error, so this must be more than the objects of an image as a rule.
        update_every: how many batches lie between two updates.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: tuple[str, ...],
        sampler: Sampler,
        pooler: Factory[ROIPooler],
        box_head: Factory[BoxHead],
        box_predictor: Factory[BoxPredictor],
        postprocess: Postprocess,
        branches: dict[str, Factory[ROIBranch]],
        append_gt: bool = True,
        initial_iou: float = 0.4,
        iou_top_k: int = 75,
        error_top_k: int = 10,
        update_every: int = 100,
    ) -> None:
        if not 0 < initial_iou <= 1:
            raise ValueError(f"initial_iou must be in (0, 1], got {initial_iou}")
        for name, value in (("iou_top_k", iou_top_k), ("error_top_k", error_top_k), ("update_every", update_every)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__init__(
            feature_shapes,
            num_classes,
            in_features=in_features,
            matcher=IoUMatcher(high_threshold=initial_iou, low_threshold=initial_iou),
            sampler=sampler,
            pooler=pooler,
            box_head=box_head,
            box_predictor=box_predictor,
            postprocess=postprocess,
            branches=branches,
            append_gt=append_gt,
        )
        if not isinstance(self.box_predictor.box_loss, DynamicSmoothL1Loss):
            raise ValueError(
                "DynamicROIHeads sets the beta of its predictor's box_loss, which must be DynamicSmoothL1Loss, "
                f"got {type(self.box_predictor.box_loss).__name__}"
            )
        self.iou_top_k = iou_top_k
        self.error_top_k = error_top_k
        self.proposal_quality = ProposalQuality(initial_iou=initial_iou, update_every=update_every)

    @property
    def moving_box_loss(self) -> DynamicSmoothL1Loss:
        """The predictor's box loss."""
        return cast(DynamicSmoothL1Loss, self.box_predictor.box_loss)

    def assign_targets_to_proposals(self, candidates: Candidates, targets: Targets) -> Matches:
        """The ground truth each candidate overlaps most, and labels by the threshold as it is now."""
        matches = self.matcher(candidates, targets)
        is_positive = matches.quality >= self.proposal_quality.iou_threshold  # [N]
        return replace(matches, labels=torch.where(is_positive, POSITIVE_LABEL, BACKGROUND_LABEL))

    def compute_losses(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[dict[str, Tensor], list[Rois]]:
        assert batch.targets is not None
        losses, rois = super().compute_losses(features, proposals, batch)
        # Logged are the values that this batch was trained with; clones, for the buffers are written in place.
        losses["roi_heads/iou_threshold"] = self.proposal_quality.iou_threshold.clone()
        losses["roi_heads/beta"] = self.moving_box_loss.beta.clone()
        if self.training:
            iou = mean_top_iou(proposals, batch.targets, self.iou_top_k)
            self.proposal_quality.see(iou, self._small_error(rois), self.moving_box_loss)
        return losses, rois

    @torch.no_grad()
    def _small_error(self, rois: Sequence[Rois]) -> Tensor:
        """Of the positives of all processes, the error of which `error_top_k` for each image are not larger."""
        # Masked rather than selected: how many positives there are, the host would have to wait for.
        errors = torch.cat([self._errors(r) for r in rois])  # [R]
        count = self.error_top_k * len(rois) * world_size()
        padded = torch.cat((errors, errors.new_full((count,), torch.inf))).sort().values[:count]
        together = concatenated_over_processes(padded).sort().values[:count]
        return together.where(together.isfinite(), NOTHING_SEEN).amax()

    def _errors(self, rois: Rois) -> Tensor:
        """[r]: how far the ground truth's centre is from each positive's, in the units of the deltas; else infinity."""
        deltas = self.box_predictor.box_coder.encode(rois.boxes, rois.gt_boxes)  # [r, 4]
        return deltas[:, :2].abs().mean(dim=1).where(rois.classes < self.num_classes, torch.inf)


@torch.no_grad()
def mean_top_iou(proposals: Sequence[Proposals], targets: Sequence[Targets], top_k: int) -> Tensor:
    """The K-th best IoU of an image's proposals with the objects, the mean over the images of all processes.

    Images without objects or without proposals do not count; of fewer than K proposals the worst is taken.

    Args:
        proposals: B Proposals.
        targets: B Targets.
        top_k: K.

    Returns:
        a scalar in 0..1; NOTHING_SEEN if no image counts.
    """
    total = proposals[0].boxes.new_zeros(2)  # the sum of the IoUs, and of how many images
    for found, target in zip(proposals, targets, strict=True):
        if len(found) and len(target):
            best = torch.stack([iou.amax(dim=0) for _, iou in iou_chunks(target.boxes, found.boxes)]).amax(dim=0)  # [P]
            total += torch.stack((best.topk(min(top_k, len(found))).values[-1], total.new_ones(())))
    iou, count = mean_over_processes(total)
    return torch.where(count > 0, iou / count.clamp(min=1e-12), NOTHING_SEEN)
