"""Proposals that are learned: the first half of Sparse R-CNN (https://arxiv.org/abs/2011.12450, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frcnn.modeling.roles import PROPOSAL_GENERATORS, Features, FeatureShapes, ProposalGenerator
from frcnn.structures import Batch, Proposals


@dataclass(frozen=True)
class LearnedRegions(Proposals):
    """Proposals of one image that bring what is known of each beside its box.

    Args:
        features: [P, C].
    """

    features: Tensor


@PROPOSAL_GENERATORS.register
class LearnedProposals(ProposalGenerator):
    """The same boxes for every image, each with a feature; both are parameters, learned from the losses of the ROI heads.

    All boxes are the whole image before training, as in the authors' code.

    Args:
        num_proposals: how many; the most objects that can be told apart in an image.
    """

    proposal_type = LearnedRegions

    def __init__(self, feature_shapes: FeatureShapes, *, num_proposals: int = 100) -> None:
        super().__init__()
        if num_proposals < 1:
            raise ValueError(f"num_proposals must be at least 1, got {num_proposals}")
        widths = {shape.channels for shape in feature_shapes.values()}
        if len(widths) != 1:
            raise ValueError(f"LearnedProposals needs equally wide feature maps, got {dict(feature_shapes)}")
        whole_image = torch.tensor([0.5, 0.5, 1.0, 1.0])
        self.boxes = nn.Parameter(whole_image.repeat(num_proposals, 1))  # [P, 4] x, y, w, h in parts of the image
        self.features = nn.Parameter(torch.randn(num_proposals, widths.pop()))  # [P, C]

    def forward(self, features: Features, batch: Batch) -> tuple[list[Proposals], dict[str, Tensor]]:
        centers, sizes = self.boxes.split(2, dim=1)
        corners = torch.cat((centers - sizes / 2, centers + sizes / 2), dim=1)  # [P, 4] in parts of the image
        index = torch.arange(corners.shape[0], device=corners.device)
        nothing = torch.zeros_like(index)
        return [
            LearnedRegions(
                corners * corners.new_tensor([width, height, width, height]),
                nothing.float(),
                nothing,
                index,
                self.features,
            )
            for height, width in batch.image_sizes
        ], {}
