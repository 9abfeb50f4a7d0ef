"""A matcher written outside the framework: every object gets its k best candidates, however small their overlap."""

import torch

from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_iou
from frcnn.structures import DISCARD_LABEL, POSITIVE_LABEL, Matches


@MATCHERS.register
class TopKMatcher(Matcher):
    """Labels the k candidates of the highest IoU with each object as positive.

    Args:
        k: positives an object.
        low_threshold: other candidates are negative below this IoU, and not trained on from there up.
    """

    def __init__(self, *, k: int = 9, low_threshold: float = 0.3) -> None:
        super().__init__()
        self.k = k
        self.low_threshold = low_threshold

    def forward(self, candidates, targets):
        if not len(targets):
            nothing = torch.zeros(len(candidates.boxes), dtype=torch.int64, device=candidates.boxes.device)
            return Matches(nothing, nothing, nothing.float())
        iou = box_iou(targets.boxes, candidates.boxes)  # [G, N]
        quality, gt_index = iou.max(dim=0)  # [N]
        labels = torch.where(quality < self.low_threshold, 0, DISCARD_LABEL)
        best, best_index = iou.topk(min(self.k, iou.shape[1]), dim=1)  # [G, k]
        labels[best_index[best > 0]] = POSITIVE_LABEL
        return Matches(gt_index, labels, quality)
