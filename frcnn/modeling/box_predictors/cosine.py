"""A predictor that classifies by angle."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.modeling.box_predictors.fast_rcnn import FastRCNNPredictor
from frcnn.modeling.roles import BOX_PREDICTORS, BoxLoss, ClassLoss
from frcnn.ops.boxes import BoxCoder
from frcnn.precision import autocast


@BOX_PREDICTORS.register
class CosinePredictor(FastRCNNPredictor):
    """Logits are cosines of the angle between feature and class weights, times a temperature, plus a bias.

    So classes with few examples, whose weights stay short, are not at a disadvantage: few-shot detection
    (https://arxiv.org/abs/2003.06957, section 3.1) and long tails (https://arxiv.org/abs/2008.10032, section 3.3).

    Args:
        box_coder: how deltas describe boxes.
        class_loss: classification loss; it also turns logits into scores.
        box_loss: regression loss, of positives only.
        temperature: the largest logit, without bias.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        box_coder: BoxCoder,
        class_loss: Factory[ClassLoss],
        box_loss: BoxLoss,
        temperature: float = 20.0,
        class_agnostic: bool = False,
        init: Literal["normal", "pytorch"] = "normal",
        prior_probability: float | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            num_classes,
            box_coder=box_coder,
            class_loss=class_loss,
            box_loss=box_loss,
            class_agnostic=class_agnostic,
            init=init,
            prior_probability=prior_probability,
        )
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.cls_score = CosineLinear(self.cls_score, temperature)


class CosineLinear(nn.Linear):
    """A linear layer of normalised inputs and normalised weights, in float32.

    Args:
        layer: whose weights and bias it takes over.
        temperature: factor of the cosines.
    """

    def __init__(self, layer: nn.Linear, temperature: float) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_features] -> [n, out_features]."""
        with autocast("off", x.device):
            x, weight = F.normalize(x.float(), dim=-1), F.normalize(self.weight.float(), dim=-1)
            return F.linear(self.temperature * x, weight, self.bias.float())
