"""Proposals that were made before, by another model or method (Fast R-CNN, https://arxiv.org/abs/1504.08083)."""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.errors import UserError
from frcnn.modeling.proposals import TrainTest
from frcnn.modeling.roles import PROPOSAL_GENERATORS, Features, FeatureShapes, ProposalGenerator
from frcnn.ops.boxes import clip_boxes, large_mask
from frcnn.structures import Batch, Proposals


@PROPOSAL_GENERATORS.register
class PrecomputedProposals(ProposalGenerator):
    """Hands on the proposals that came with the images, and learns nothing.

    They are taken to be sorted, best first. All have the objectness 0, a probability of one half: what their scores mean
    is up to who made them, and the ROI heads do not ask.

    Args:
        feature_shapes: channels and stride of every feature map; not looked at.
        top_n: how many proposals of an image are taken, from the first on.
    """

    reads_proposals = True

    def __init__(self, feature_shapes: FeatureShapes, *, top_n: TrainTest) -> None:
        super().__init__()
        self.top_n = top_n

    def forward(self, features: Features, batch: Batch) -> tuple[list[Proposals], dict[str, Tensor]]:
        """Clips each image's proposals to it and drops those without area.

        Raises:
            UserError: the batch brings no proposals.
        """
        if batch.proposals is None:
            raise UserError(
                "PrecomputedProposals reads proposals from the data set, but the images come without any: "
                "give the data set the file that has them, data.train.dataset.proposals=FILE and the same for every "
                "test set, or choose another proposal_generator"
            )
        return [self._of_image(boxes, size) for boxes, size in zip(batch.proposals, batch.image_sizes, strict=True)], {}

    def _of_image(self, boxes: Tensor, image_size: tuple[int, int]) -> Proposals:
        clipped = clip_boxes(boxes[: self.top_n.at(self.training)].float(), image_size)  # [P, 4]
        index = torch.nonzero(large_mask(clipped)).squeeze(1)  # [p]
        nothing = torch.zeros_like(index)
        return Proposals(clipped[index], nothing.float(), nothing, index)
