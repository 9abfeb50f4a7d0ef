"""Claims of ground truths on candidates, and who gets a candidate that several claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from frcnn.structures import BACKGROUND_LABEL, POSITIVE_LABEL, Candidates, Matches, Predictions

CLAIM_CHUNK_ELEMENTS = 2**21
"""How many pairs of a ground truth and a candidate are looked at at once (8 MiB for each number of a pair)."""


class Claims(NamedTuple):
    """Pairs of a ground truth and a candidate that it wants.

    Args:
        gt: [n] int64, which ground truth.
        candidate: [n] int64, which candidate.
        value: [n], how good the pair is; the highest claim on a candidate wins.
        iou: [n], the overlap of the pair.
    """

    gt: Tensor
    candidate: Tensor
    value: Tensor
    iou: Tensor


class Ranking(NamedTuple):
    """What some ground truths think of all candidates.

    Args:
        value: [g, N], higher is better; -inf is never claimed.
        iou: [g, N].
        limit: [g] int64, how many each may claim.
    """

    value: Tensor
    iou: Tensor
    limit: Tensor


def gt_chunks(gt_boxes: Tensor, num_candidates: int) -> Iterator[tuple[int, Tensor]]:
    """The ground truths some at a time, so that what is computed of all their pairs has a bounded size.

    Args:
        gt_boxes: [G, 4].
        num_candidates: N.

    Yields:
        the number of ground truths before, and the boxes [g, 4].
    """
    step = max(1, CLAIM_CHUNK_ELEMENTS // max(1, num_candidates))
    for first in range(0, len(gt_boxes), step):
        yield first, gt_boxes[first : first + step]


def best_claims(
    rank: Callable[[slice], Ranking], num_gts: int, num_candidates: int, max_limit: int, device: torch.device
) -> Claims:
    """Every ground truth claims its best candidates. Memory does not grow with the number of ground truths.

    Args:
        rank: what the ground truths of a slice think of the candidates.
        num_gts: G.
        num_candidates: N.
        max_limit: the largest `limit` that `rank` gives.
        device: where the candidates are.
    """
    kept = min(max_limit, num_candidates)
    place = torch.arange(kept, device=device)
    # One tensor for all chunks: small results kept between large temporaries would scatter the heap over gigabytes.
    candidate = torch.empty((num_gts, kept), dtype=torch.int64, device=device)
    value, iou = torch.empty((2, num_gts, kept), device=device)
    step = max(1, CLAIM_CHUNK_ELEMENTS // max(1, num_candidates))
    for first in range(0, num_gts, step):
        chunk = slice(first, first + step)
        ranking = rank(chunk)
        best, index = ranking.value.topk(kept)  # [g, kept] each
        value[chunk] = best.where(place < ranking.limit[:, None], -torch.inf)
        candidate[chunk], iou[chunk] = index, ranking.iou.gather(1, index)
    gt, column = torch.nonzero(value > -torch.inf, as_tuple=True)
    return Claims(gt, candidate[gt, column], value[gt, column], iou[gt, column])


def highest_claim_wins(claims: Claims, num_candidates: int, num_gts: int) -> Matches:
    """Each claimed candidate is a positive of the ground truth with the highest claim; of equal ones, of the first.

    All others are negatives. The quality is the IoU of the claim, and 0 where there is none.

    Args:
        claims: n pairs.
        num_candidates: N.
        num_gts: G.
    """
    gt, candidate, value, iou = claims
    highest = value.new_full((num_candidates,), -torch.inf).scatter_reduce(0, candidate, value, "amax")
    winner = value == highest[candidate]
    none = gt.new_full((num_candidates,), num_gts)
    gt_index = none.scatter_reduce(0, candidate[winner], gt[winner], "amin")
    claimed = gt_index < num_gts
    labels = torch.where(claimed, POSITIVE_LABEL, BACKGROUND_LABEL)
    winner = winner & (gt == gt_index[candidate])
    quality = iou.new_zeros(num_candidates).index_put((candidate[winner],), iou[winner])
    return Matches(gt_index=torch.where(claimed, gt_index, 0), labels=labels, quality=quality)


def predictions_of(candidates: Candidates) -> Predictions:
    """What the model says of the candidates.

    Raises:
        ValueError: the candidates come without it.
    """
    if candidates.predictions is None:
        raise ValueError("this matcher weighs what the model predicts, but the candidates come without predictions")
    return candidates.predictions()
