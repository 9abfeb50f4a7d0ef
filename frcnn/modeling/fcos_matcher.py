"""FCOS's positives (https://arxiv.org/abs/1904.01355): locations inside a ground truth that suits their level."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_area
from frcnn.structures import BACKGROUND_LABEL, POSITIVE_LABEL, Candidates, Matches, Targets


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
        gt_boxes = targets.boxes.float()  # [G, 4]
        # One ground truth behind the others stands for "nothing": larger than all, so that it is taken last.
        area = torch.cat((box_area(gt_boxes), gt_boxes.new_tensor([torch.inf])))  # [G + 1]
        ranges = list(pairwise((0.0, *self.size_limits, math.inf)))
        gt_index = torch.cat(
            [
                self._match_level(cells.float(), gt_boxes, area, *limits)
                for cells, limits in zip(candidates.boxes_per_level, ranges, strict=True)
            ]
        )  # [N] in 0..G
        is_positive = gt_index < len(gt_boxes)
        gt_index = torch.where(is_positive, gt_index, 0)
        quality = gt_index.new_zeros(len(gt_index), dtype=torch.float32)
        positive = torch.nonzero(is_positive).squeeze(1)
        centers = _centers(candidates.boxes[positive].float())
        quality[positive] = centerness(distances(centers, gt_boxes[gt_index[positive]]))
        return Matches(gt_index, torch.where(is_positive, POSITIVE_LABEL, BACKGROUND_LABEL), quality)

    def _match_level(self, cells: Tensor, gt_boxes: Tensor, area: Tensor, low: float, high: float) -> Tensor:
        """[N_l]: the smallest ground truth that each location of a level stands for, G for none."""
        chosen = torch.full((len(cells),), len(gt_boxes), dtype=torch.int64, device=cells.device)
        centers = _centers(cells)  # [N_l, 2]
        radius = cells[:, 2:] - cells[:, :2]  # [N_l, 2] of one stride
        for gt, box in enumerate(gt_boxes):
            sides = distances(centers, box)  # [N_l, 4]
            farthest = sides.amax(dim=1)
            matches = (sides > 0).all(dim=1) & (farthest > low) & (farthest <= high)
            if self.center_radius is not None:
                away = (centers - _centers(box)).abs()  # [N_l, 2]
                matches &= (away < self.center_radius * radius).all(dim=1)
            chosen = torch.where(matches & (area[gt] < area[chosen]), gt, chosen)
        return chosen


def distances(points: Tensor, boxes: Tensor) -> Tensor:
    """From points [n, 2] to the left, top, right and bottom of boxes [n or 1, 4]: [n, 4], negative outside."""
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


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2
