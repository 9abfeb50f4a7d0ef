"""FCOS's positives (https://arxiv.org/abs/1904.01355): locations inside a ground truth that suits their level."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from frcnn.modeling.matchers.claims import Claims, gt_chunks, highest_claim_wins
from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_area, box_centers
from frcnn.structures import Candidates, Matches, Targets


@MATCHERS.register
class FCOSMatcher(Matcher):
    """A location is positive inside a ground truth whose farthest side is as far as its level is made for.

    Candidates are the cells of the feature maps; their centres are the locations. A location inside several ground truths
    goes to the smallest. All others are negative.

    Args:
        size_limits: between two levels, the distance in pixels up to which the finer one is used; one fewer than levels.
        center_radius: a location must also be this near the middle of the ground truth, in strides along each axis; null
            takes all locations inside it.
    """

    def __init__(
        self,
        *,
        size_limits: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0),
        center_radius: float | None = 1.5,
    ) -> None:
        super().__init__()
        if list(size_limits) != sorted(set(size_limits)) or not all(limit > 0 for limit in size_limits):
            raise ValueError(f"size_limits must ascend and be above 0, got {list(size_limits)}")
        if center_radius is not None and not center_radius > 0:
            raise ValueError(f"center_radius must be above 0, got {center_radius}")
        self.size_limits = tuple(size_limits)
        self.num_levels = len(size_limits) + 1
        self.center_radius = center_radius

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        cells, gt_boxes = candidates.boxes.float(), targets.boxes.float()  # [N, 4], [G, 4]
        centers, stride = box_centers(cells), cells[:, 2:] - cells[:, :2]  # [N, 2] each
        low, high = self._limits(candidates)  # [N] each
        pairs = [torch.zeros(0, 2, dtype=torch.int64, device=cells.device)]
        for first, boxes in gt_chunks(gt_boxes, len(cells)):  # [g, 4]
            sides = distances(centers, boxes[:, None])  # [g, N, 4]
            farthest = sides.amax(dim=-1)
            matches = (sides > 0).all(dim=-1) & (farthest > low) & (farthest <= high)
            if self.center_radius is not None:
                away = (centers - box_centers(boxes)[:, None]).abs()  # [g, N, 2]
                matches &= (away < self.center_radius * stride).all(dim=-1)
            pairs.append(torch.nonzero(matches) + torch.tensor([first, 0], device=cells.device))
        gt, candidate = torch.cat(pairs).unbind(dim=1)  # [n] each
        quality = centerness(distances(centers[candidate], gt_boxes[gt]))
        return highest_claim_wins(Claims(gt, candidate, -box_area(gt_boxes[gt]), quality), len(cells), len(gt_boxes))

    def _limits(self, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """[N] each: which distances to the farthest side suit the level of each candidate."""
        ranges = pairwise((0.0, *self.size_limits, math.inf))
        levels = zip(candidates.boxes_per_level, ranges, strict=True)
        limits = torch.cat([cells.new_tensor(of_level).expand(len(cells), 2) for cells, of_level in levels])  # [N, 2]
        return limits[:, 0], limits[:, 1]


def distances(points: Tensor, boxes: Tensor) -> Tensor:
    """From points [..., 2] to the left, top, right and bottom of boxes [..., 4]: [..., 4], negative outside; broadcast."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def centerness(sides: Tensor) -> Tensor:
    """1 in the middle of a box and 0 at its edge (equation 3 of the paper).

    Args:
        sides: [n, 4] positive distances to the left, top, right and bottom.

    Returns:
        [n] in 0..1.
    """
    left, top, right, bottom = sides.unbind(-1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()
