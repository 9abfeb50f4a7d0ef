"""From candidate boxes to the ROIs that a stage of the second part is trained on: match, sample, label."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from frcnn.modeling.modes import unobserved
from frcnn.modeling.roles import BoxPredictor, Sampler
from frcnn.ops.boxes import large_mask
from frcnn.structures import POSITIVE_LABEL, Batch, Candidates, Matches, Proposals, Rois, ScoredBoxes, Targets

RunHead = Callable[[Sequence[Tensor]], tuple[Tensor, Tensor]]
"""B x boxes [r, 4] -> class_logits [R, num_logits], deltas [R, 4K or 4]."""


def candidate_boxes(proposals: Sequence[Proposals], targets: Sequence[Targets], append_gt: bool) -> list[Tensor]:
    """B x [P (+ G), 4] without gradient: the proposals and, behind them, the ground truths."""
    if not append_gt:
        return [p.boxes.detach() for p in proposals]
    return [torch.cat((p.boxes.detach(), t.boxes)) for p, t in zip(proposals, targets, strict=True)]


def sample_rois(
    boxes_per_image: Sequence[Tensor],
    batch: Batch,
    *,
    match: Callable[[Candidates, Targets], Matches],
    sampler: Sampler,
    box_predictor: BoxPredictor,
    run_head: RunHead,
    purpose: str,
) -> list[Rois]:
    """Chooses the ROIs of every image.

    What the head says of the candidates is computed at most once a batch, and only if a matcher or a sampler asks.

    Args:
        boxes_per_image: B x [N, 4] candidates.
        batch: whose targets are matched, and whose key the draws depend on.
        match: says which ground truth each candidate stands for.
        sampler: says which candidates take part.
        box_predictor: turns what the head says into predictions (for matchers) and losses (for samplers).
        run_head: pools the boxes and runs the head; called inside `unobserved` by its owner.
        purpose: name of the draw.

    Returns:
        B Rois, positives first; `index` counts within the image's candidates.
    """
    assert batch.targets is not None
    outputs = _computed_once(run_head, boxes_per_image)

    def sample(image: int, boxes: Tensor, targets: Targets) -> Rois:
        candidates = Candidates(
            [boxes], lambda: box_predictor.predictions(*outputs()[image], boxes), batch.image_sizes[image]
        )
        matches = match(candidates, targets)
        labelled = label_candidates(boxes, matches, targets, box_predictor.num_classes)

        def hardness() -> Tensor:
            with unobserved(box_predictor):  # a loss may count what it is shown
                return box_predictor.hardness(*outputs()[image], labelled)

        positive, negative = sampler(matches, hardness, batch.draw.generator(image, purpose, boxes.device))
        return labelled.select(torch.cat((positive, negative)))

    return list(map(sample, range(len(batch)), boxes_per_image, batch.targets))


def _computed_once(run_head: RunHead, boxes_per_image: Sequence[Tensor]) -> Callable[[], list[tuple[Tensor, Tensor]]]:
    """A function that gives the class logits and deltas of each image, and runs the head when it is first called."""

    @functools.cache
    def outputs() -> list[tuple[Tensor, Tensor]]:
        class_logits, deltas = run_head(boxes_per_image)
        sizes = [len(boxes) for boxes in boxes_per_image]
        return list(zip(class_logits.split(sizes), deltas.split(sizes), strict=True))

    return outputs


def label_candidates(boxes: Tensor, matches: Matches, targets: Targets, num_classes: int) -> Rois:
    """Every candidate of one image [N, 4] with the class and the box of what it was matched with."""
    # One row behind the ground truths stands for "nothing", so that an image without objects takes the same path.
    gt_boxes = torch.cat((targets.boxes.float(), boxes.new_zeros(1, boxes.shape[1])))  # [G + 1, 4]
    gt_classes = torch.cat((targets.classes, targets.classes.new_full((1,), num_classes)))  # [G + 1]
    return Rois(
        boxes=boxes,
        classes=torch.where(matches.labels == POSITIVE_LABEL, gt_classes[matches.gt_index], num_classes),
        gt_boxes=gt_boxes[matches.gt_index],
        gt_index=matches.gt_index,
        index=torch.arange(len(boxes), device=boxes.device),
    )


def moved_rois(rois: Rois, scored: ScoredBoxes) -> Rois:
    """The ROIs of one image where the box of each one's true class is, without those that are empty there.

    Background has no box of its own and takes that of the last class, as in detectron2; no branch looks at it.

    Args:
        rois: r ROIs.
        scored: what the predictor says of them.
    """
    column = rois.classes.clamp(max=scored.boxes.shape[1] - 1)
    boxes = scored.boxes[torch.arange(len(rois), device=column.device), column]  # [r, 4]
    return replace(rois, boxes=boxes).select(large_mask(boxes))


def sampling_counts(rois: Sequence[Rois], num_classes: int, suffix: str = "") -> dict[str, Tensor]:
    """How many positives and negatives were sampled, in the mean image; only logged."""
    num_positive = torch.stack([(r.classes < num_classes).sum() for r in rois]).float().mean()
    num_rois = sum(len(r) for r in rois) / len(rois)
    return {
        f"roi_heads/num_positive{suffix}": num_positive,
        f"roi_heads/num_negative{suffix}": num_rois - num_positive,
    }
