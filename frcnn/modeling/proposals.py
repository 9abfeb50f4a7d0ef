"""From scored anchors to proposals: the two steps behind the RPN's head, each a module that says what it kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from frcnn.modeling.roles import NMS, RPNOutput
from frcnn.ops.boxes import BoxCoder, clip_boxes, large_mask
from frcnn.ops.dense import flatten_map, gather_from_map
from frcnn.structures import Proposals


@dataclass(frozen=True)
class TrainTest:
    """A number for training mode and one for evaluation mode.

    Args:
        train: in training mode.
        test: in evaluation mode.
    """

    train: int
    test: int

    def __post_init__(self) -> None:
        if self.train < 1 or self.test < 1:
            raise ValueError(f"train and test must be at least 1, got {self.train} and {self.test}")

    def at(self, training: bool) -> int:
        return self.train if training else self.test


def anchors_of_image(anchors: Sequence[Tensor], image: int) -> list[Tensor]:
    """The anchors of one image of a batch.

    Args:
        anchors: L x [N_l, 4], or [B, N_l, 4] where images have their own.
        image: its index in the batch.

    Returns:
        L x [N_l, 4].
    """
    return [level if level.dim() == 2 else level[image] for level in anchors]


class RankAnchors(nn.Module):
    """Keeps the best anchors of each level, and decodes those alone.

    Args:
        box_coder: how deltas describe a box relative to its anchor.
        top_n: how many of each level are kept.
    """

    def __init__(self, box_coder: BoxCoder, top_n: TrainTest) -> None:
        super().__init__()
        self.box_coder = box_coder
        self.top_n = top_n

    def forward(self, anchors: Sequence[Tensor], output: RPNOutput) -> list[Proposals]:
        """Ranks first and decodes after, which gives the same boxes.

        Args:
            anchors: L x [N_l, 4], or [B, N_l, 4] where images have their own.
            output: what the head says.

        Returns:
            B Proposals, level after level, best first in each; `index` is the anchor that each came from.
        """
        first = 0
        ranked_per_level = []
        for level, (objectness, deltas) in enumerate(zip(output.objectness, output.deltas, strict=True)):
            logits = flatten_map(objectness).squeeze(-1).float()  # [B, N_l]
            count = min(self.top_n.at(self.training), logits.shape[1])
            logits, index = logits.topk(count)  # [B, k] each
            image = torch.arange(len(logits), device=logits.device)[:, None]
            chosen = anchors[level].expand(len(logits), -1, -1)[image, index]  # [B, k, 4]
            boxes = self.box_coder.decode(chosen, gather_from_map(deltas, output.num_deltas, image, index))  # [B, k, 4]
            ranked_per_level.append((boxes, logits, torch.full_like(index, level), index + first))
            first += anchors[level].shape[-2]
        ranked = [torch.cat(values, dim=1) for values in zip(*ranked_per_level, strict=True)]  # 4 x [B, P, ...]
        return [Proposals(*values) for values in zip(*ranked, strict=True)]


class SuppressProposals(nn.Module):
    """Clips the ranked boxes of one image, drops what is no proposal, and suppresses what overlaps a better one.

    Args:
        nms: what overlaps a better one of its level.
        top_n: how many of an image are kept.
        min_size: a box must be wider and higher than this, in pixels of the network's input.
        min_size_inclusive: whether a side of exactly min_size is enough.
        score_thresh: boxes whose probability is below are dropped before NMS.
        nms_on: whether NMS ranks by logit or by probability.
    """

    def __init__(
        self,
        nms: NMS,
        top_n: TrainTest,
        *,
        min_size: float,
        min_size_inclusive: bool,
        score_thresh: float,
        nms_on: Literal["logit", "probability"],
    ) -> None:
        super().__init__()
        if min_size < 0:
            raise ValueError(f"min_size must be at least 0, got {min_size}")
        if not 0 <= score_thresh <= 1:
            raise ValueError(f"score_thresh must be in [0, 1], got {score_thresh}")
        if nms.needs_probabilities and nms_on != "probability":
            raise ValueError(
                f"{type(nms).__name__} needs scores in 0..1, got nms_on {nms_on!r}: set nms_on: probability"
            )
        self.nms = nms
        self.top_n = top_n
        self.min_size = min_size
        self.min_size_inclusive = min_size_inclusive
        self.score_thresh = score_thresh
        self.nms_on = nms_on

    def forward(self, ranked: Proposals, image_size: tuple[int, int]) -> tuple[Proposals, Tensor]:
        """The proposals of one image.

        Args:
            ranked: P boxes with their logits and levels.
            image_size: (h, w) before padding, which boxes are clipped to.

        Returns:
            the proposals, best first, and their rows [p] in `ranked`.
        """
        boxes = clip_boxes(ranked.boxes, image_size)  # [P, 4]
        probability = ranked.objectness.sigmoid()
        finite = boxes.isfinite().all(dim=1) & ranked.objectness.isfinite()
        large = large_mask(boxes, self.min_size, self.min_size_inclusive)
        kept = torch.nonzero(finite & large & (probability >= self.score_thresh)).squeeze(1)
        scores = probability if self.nms_on == "probability" else ranked.objectness
        index, _ = self.nms(boxes[kept], scores[kept], ranked.level[kept])
        row = kept[index[: self.top_n.at(self.training)]]  # [p]
        return Proposals(boxes[row], ranked.objectness[row], ranked.level[row], ranked.index[row]), row
