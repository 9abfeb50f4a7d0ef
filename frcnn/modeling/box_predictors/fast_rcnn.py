"""The predictor of Fast R-CNN: two linear layers, their losses, and the boxes and scores they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.distributed import mean_count
from frcnn.modeling.roles import BOX_PREDICTORS, BoxLoss, BoxPredictor, ClassLoss
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Rois, ScoredBoxes


@BOX_PREDICTORS.register
class FastRCNNPredictor(BoxPredictor):
    """Two linear layers side by side: classes, and the box of each class (Fast R-CNN).

    Args:
        box_coder: how deltas describe boxes.
        class_loss: classification loss; it also turns logits into scores.
        box_loss: regression loss, of positives only.
        class_agnostic: one box for all classes instead of one each.
        init: normal draws the weights with standard deviation 0.01 (classes) and 0.001 (boxes) and zeroes the biases;
            pytorch leaves them as `nn.Linear` draws them (torchvision).
        prior_probability: of each class before training, set by the biases; sigmoid losses over many classes ask for 0.01
            or so, or the easy negatives drown the rest at the start; null leaves the biases as `init` says.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        box_coder: BoxCoder,
        class_loss: Factory[ClassLoss],
        box_loss: BoxLoss,
        class_agnostic: bool = False,
        init: Literal["normal", "pytorch"] = "normal",
        prior_probability: float | None = None,
    ) -> None:
        super().__init__()
        if prior_probability is not None and not 0 < prior_probability < 1:
            raise ValueError(f"prior_probability must be between 0 and 1, got {prior_probability}")
        self.num_classes = num_classes
        self.box_coder = box_coder
        self.class_loss = class_loss(num_classes)
        self.box_loss = box_loss
        self.cls_score = nn.Linear(in_channels, self.class_loss.num_logits)
        num_boxes = 1 if class_agnostic else num_classes
        self.bbox_pred = nn.Linear(in_channels, num_boxes * box_coder.num_deltas)
        if init == "normal":
            for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
        if prior_probability is not None:
            log_odds = math.log(prior_probability / (1 - prior_probability))
            nn.init.constant_(self.cls_score.bias[:num_classes], log_odds)

    def forward(self, box_features: Tensor) -> tuple[Tensor, Tensor]:
        """[R, in_channels] -> class_logits [R, num_logits] and deltas [R, 4K or 4], float32.

        A subclass overrides the two halves and not this, for Double-Head R-CNN asks for each of them alone.
        """
        return self.classify(box_features), self.regress(box_features)

    def classify(self, box_features: Tensor) -> Tensor:
        return self.cls_score(box_features).float()

    def regress(self, box_features: Tensor) -> Tensor:
        return self.bbox_pred(box_features).float()

    def losses(self, class_logits: Tensor, deltas: Tensor, rois: Sequence[Rois]) -> dict[str, Tensor]:
        num_rois = torch.full((), float(len(class_logits)), device=class_logits.device)  # no copy, which waits
        return fastrcnn_loss(
            class_logits,
            deltas,
            rois,
            mean_count(num_rois, self.training),
            num_classes=self.num_classes,
            box_coder=self.box_coder,
            class_loss=self.class_loss,
            box_loss=self.box_loss,
        )

    @torch.no_grad()
    def hardness(self, class_logits: Tensor, deltas: Tensor, rois: Rois) -> Tensor:
        positive, box_losses = positive_box_losses(deltas, rois, self.num_classes, self.box_coder, self.box_loss)
        hardness = self.class_loss(class_logits, rois.classes) * self.class_loss.loss_weight  # [r]
        return hardness.index_add(0, positive, box_losses * self.box_loss.loss_weight)

    def decode(self, class_logits: Tensor, deltas: Tensor, boxes: Tensor) -> ScoredBoxes:
        scores = self.class_loss.scores(class_logits)  # [r, K]
        decoded = self.box_coder.decode(boxes, deltas.unflatten(1, (-1, self.box_coder.num_deltas)))  # [r, K or 1, 4]
        return ScoredBoxes(decoded.expand(-1, self.num_classes, -1), scores)


def fastrcnn_loss(
    class_logits: Tensor,
    deltas: Tensor,
    rois: Sequence[Rois],
    normalizer: Tensor,
    *,
    num_classes: int,
    box_coder: BoxCoder,
    class_loss: ClassLoss,
    box_loss: BoxLoss,
) -> dict[str, Tensor]:
    """The two losses of Fast R-CNN. Both are divided by all sampled ROIs, so that every ROI weighs the same.

    Args:
        class_logits: [R, num_logits].
        deltas: [R, 4K or 4].
        rois: B sampled ROIs, R together.
        normalizer: what both sums are divided by, the number of sampled ROIs.
        num_classes: K, the class that stands for background.
        box_coder: how deltas describe boxes.
        class_loss: of all R.
        box_loss: of the positives, in the deltas of their own class.

    Returns:
        loss_classifier and loss_box_reg; 0 with a gradient when nothing was sampled.
    """
    together = concatenate(rois)
    _, box_losses = positive_box_losses(deltas, together, num_classes, box_coder, box_loss)  # [P]
    class_losses = class_loss(class_logits, together.classes)  # [R]
    return {
        "loss_classifier": class_losses.sum() / normalizer * class_loss.loss_weight,
        "loss_box_reg": box_losses.sum() / normalizer * box_loss.loss_weight,
    }


def positive_box_losses(
    deltas: Tensor, rois: Rois, num_classes: int, box_coder: BoxCoder, box_loss: BoxLoss
) -> tuple[Tensor, Tensor]:
    """The box loss of the ROIs that stand for an object, each in the deltas of its own class.

    Returns:
        their index [P] among the ROIs, and their losses [P].
    """
    positive = torch.where(rois.classes < num_classes)[0]  # [P]
    per_class = deltas.unflatten(1, (-1, box_coder.num_deltas))  # [R, K or 1, 4]
    column = rois.classes[positive].clamp(max=per_class.shape[1] - 1)
    chosen = per_class[positive, column]  # [P, 4]
    return positive, box_loss(box_coder, rois.boxes[positive], chosen, rois.gt_boxes[positive])


def concatenate(rois: Sequence[Rois]) -> Rois:
    """The ROIs of a batch behind one another; indices still count within their image."""
    return Rois(
        boxes=torch.cat([r.boxes for r in rois]),
        classes=torch.cat([r.classes for r in rois]),
        gt_boxes=torch.cat([r.gt_boxes for r in rois]),
        gt_index=torch.cat([r.gt_index for r in rois]),
        index=torch.cat([r.index for r in rois]),
    )
