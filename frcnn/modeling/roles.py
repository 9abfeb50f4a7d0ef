"""The map of the model: every role, its registry, and its contract.

A role is a base class. The arguments that its parent passes when it builds the part are the registry's wiring; everything
else is an option of the component. Roles are modules and are reached through `__call__`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from frcnn.config import Registry
from frcnn.ops.boxes import BoxCoder
from frcnn.ops.dense import gather_from_levels
from frcnn.structures import (
    Batch,
    Candidates,
    Detections,
    FeatureShape,
    Matches,
    Output,
    Predictions,
    Proposals,
    Rois,
    ROIShape,
    ScoredBoxes,
    Targets,
)

Features = Mapping[str, Tensor]
FeatureShapes = Mapping[str, FeatureShape]
SharedFeatures = Callable[[Sequence[Tensor]], Tensor]
"""B x boxes [r, 4] -> the map that the box head makes of each box, [R, C, h, w]."""


class Role(nn.Module):
    """A part that can be exchanged. Tells type checkers and readers that calling it runs `forward`.

    `box_dim` is how many numbers a box has that it works with, None if boxes are nothing to it: all parts of a detector
    must agree. So a detector of other boxes refuses a part for x1 y1 x2 y2 when it is built, and the other way round.
    """

    @property
    def box_dim(self) -> int | None:
        return None

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define forward()")


class Detector(Role):
    """(num_classes) | Batch -> Output. Normalises, pads, and rescales detections to the original size."""

    box_dim = 4

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    @property
    def tells_classes_apart(self) -> bool:
        """Whether the classes of its detections mean something. Those of proposals do not: all are 0, for any object."""
        return True

    @property
    def learns(self) -> bool:
        """Whether it has losses at all."""
        return True

    @property
    def detection_fields(self) -> frozenset[str]:
        """What of Detections it fills beside boxes, scores and classes: "masks", "keypoints"."""
        branches = [part for part in self.modules() if isinstance(part, ROIBranch)]
        return frozenset(field for branch in branches for field in branch.detection_fields)

    @property
    def fields_to_predict(self) -> frozenset[str]:
        """What its images must bring with them: "proposals", if it makes none itself."""
        generators = [part for part in self.modules() if isinstance(part, ProposalGenerator)]
        return frozenset({"proposals"} if any(part.reads_proposals for part in generators) else ())

    @property
    def fields_to_train(self) -> frozenset[str]:
        """What its training images must bring beside boxes and classes: what it fills, it learns from."""
        return self.detection_fields | self.fields_to_predict

    def forward(self, batch: Batch) -> Output:
        return super().forward(batch)

    def predict_branches(self, batch: Batch, detections: Sequence[Detections]) -> list[Detections]:
        """Masks, keypoints and whatever else it finds in given boxes, in the pixels of the original images."""
        raise NotImplementedError(f"{type(self).__name__} must define predict_branches()")


class Backbone(Role):
    """() | images [B, 3, H, W] -> {name: [B, C, H/s, W/s]}. Sides that the stride does not divide are rounded up.

    `size_divisibility` is what the sides of the padded images must be multiples of; most backbones take any size.
    """

    feature_shapes: FeatureShapes
    size_divisibility: int = 1

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return super().forward(images)


class Neck(Role):
    """(feature_shapes) | features -> features; necks are chained in a list."""

    feature_shapes: FeatureShapes
    size_divisibility: int = 1

    def forward(self, features: Features) -> dict[str, Tensor]:
        return super().forward(features)


class AnchorGenerator(Role):
    """(strides) | (grid_sizes, padded_size) -> L x [N_l, 4], in the order y, x, anchor."""

    box_dim = 4
    num_anchors: int

    def forward(self, grid_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]) -> list[Tensor]:
        return super().forward(grid_sizes, padded_size)


class RPNOutput(NamedTuple):
    """L x objectness [B, A, H, W] and L x deltas [B, 4A, H, W]."""

    objectness: list[Tensor]
    deltas: list[Tensor]

    @property
    def num_deltas(self) -> int:
        """How many numbers move one anchor."""
        return self.deltas[0].shape[1] // self.objectness[0].shape[1]


class RPNHead(Role):
    """(in_channels, num_anchors) | L feature maps -> RPNOutput."""

    box_dim = 4

    def forward(self, features: Sequence[Tensor]) -> RPNOutput:
        return super().forward(features)

    def at(
        self, features: Sequence[Tensor], dense: RPNOutput, index_per_image: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits and deltas, with gradient, of the sampled candidates only.

        The way from the head to its loss goes through here, so that a head may run densely without gradient and again,
        with gradient, at these candidates alone. This base class gathers them from the dense output.

        Args:
            features: L x [B, C, H, W], what `forward` was given.
            dense: what `forward` returned.
            index_per_image: B x [n] candidate indices in the order level, y, x, anchor.

        Returns:
            logits [sum n] and deltas [sum n, 4], image after image.
        """
        sizes = [len(index) for index in index_per_image]
        index = torch.cat(list(index_per_image))  # [n], image after image
        image = torch.repeat_interleave(
            torch.arange(len(sizes), device=index.device), torch.tensor(sizes, device=index.device)
        )
        logits = gather_from_levels(dense.objectness, 1, image, index).squeeze(1)  # [n]
        return logits, gather_from_levels(dense.deltas, dense.num_deltas, image, index)


class Matcher(Role):
    """() | (candidates, targets) -> Matches.

    `num_levels` is how many levels of candidates it must be given, None for any number.
    """

    box_dim = 4
    num_levels: int | None = None

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        return super().forward(candidates, targets)


class Sampler(Role):
    """() | (matches, hardness, generator) -> positive, negative index tensors.

    `hardness` is a function that gives the current loss of each candidate [N] when called, of its class and, if positive, of its
    box, both weighted; a sampler that does not call it pays nothing for it. It runs without gradient and updates no statistics.
    """

    batch_size_per_image: int | None

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return super().forward(matches, hardness, generator)


class BoxLoss(Role):
    """() | (box_coder, boxes [n, 4], pred_deltas [n, 4], gt_boxes [n, 4]) -> [n]. Only positives ever reach it.

    What it returns is not weighted: the parent multiplies by `loss_weight` after it has summed and normalised.
    """

    loss_weight: float

    def forward(self, box_coder: BoxCoder, boxes: Tensor, pred_deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        return super().forward(box_coder, boxes, pred_deltas, gt_boxes)


class ClassLoss(Role):
    """(num_classes) | (logits [n, num_logits], classes [n] in 0..K, K is background) -> [n].

    It owns its inference too: `scores` turns logits into probabilities of the K classes. What it returns is not weighted:
    the parent multiplies by `loss_weight` after it has summed and normalised.
    """

    loss_weight: float
    num_logits: int

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        return super().forward(logits, classes)

    def scores(self, logits: Tensor) -> Tensor:
        """[n, num_logits] -> [n, K]."""
        raise NotImplementedError(f"{type(self).__name__} must define scores()")


class NMS(Role):
    """() | (boxes [n, 4], scores [n], classes [n]) -> index [k], scores [k], best first.

    `needs_probabilities` says that scores must lie in 0..1, because they are changed and not only ranked.
    """

    box_dim = 4
    needs_probabilities: bool = False

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(boxes, scores, classes)


class ProposalGenerator(Role):
    """(feature_shapes) | (features, batch) -> B Proposals, losses.

    `reads_proposals` says that it takes its proposals from the batch: a data set without them can then be refused, before
    anything runs. `proposal_type` is what it gives: a subclass of Proposals if they bring more, for ROI heads that read it.
    """

    box_dim = 4
    reads_proposals: bool = False
    proposal_type: type[Proposals] = Proposals

    def forward(self, features: Features, batch: Batch) -> tuple[list[Proposals], dict[str, Tensor]]:
        return super().forward(features, batch)


class ROIPooler(Role):
    """(feature_shapes) | (features, B x boxes [r, 4]) -> [R, C, resolution, resolution]."""

    box_dim = 4
    out_channels: int
    resolution: int

    def forward(self, features: Features, boxes_per_image: Sequence[Tensor]) -> Tensor:
        return super().forward(features, boxes_per_image)


class BoxHead(Role):
    """(in_channels, resolution) | [R, C, h, w] -> what the predictor reads, [R, out_channels].

    A head that makes a map before the vector may share it with the branches (masks of C4 detectors are made of res5):
    it then has a `shared_shape`, and `shared_map` gives the map.
    """

    out_channels: int
    shared_shape: ROIShape | None = None

    def forward(self, roi_features: Tensor) -> Tensor:
        return super().forward(roi_features)

    def shared_map(self, roi_features: Tensor) -> Tensor:
        """[R, C, h, w] -> [R, channels, resolution, resolution] of `shared_shape`."""
        raise NotImplementedError(f"{type(self).__name__} must define shared_map()")


class BoxPredictor(Role):
    """(in_channels, num_classes) | [R, in_channels] -> class_logits [R, num_logits], deltas [R, 4K or 4].

    Owns the box coder and the two losses.
    """

    num_classes: int
    box_coder: BoxCoder
    box_loss: BoxLoss

    @property
    def box_dim(self) -> int:
        return self.box_coder.num_deltas

    def forward(self, box_features: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(box_features)

    def classify(self, box_features: Tensor) -> Tensor:
        """class_logits [R, num_logits] alone, where boxes are read from other features; override it if that is cheaper."""
        return self(box_features)[0]

    def regress(self, box_features: Tensor) -> Tensor:
        """deltas [R, 4K or 4] alone, where classes are read from other features; override it if that is cheaper."""
        return self(box_features)[1]

    def losses(self, class_logits: Tensor, deltas: Tensor, rois: Sequence[Rois]) -> dict[str, Tensor]:
        """loss_classifier and loss_box_reg of the sampled ROIs of the batch."""
        raise NotImplementedError(f"{type(self).__name__} must define losses()")

    def hardness(self, class_logits: Tensor, deltas: Tensor, rois: Rois) -> Tensor:
        """[r], what each ROI would add to the losses, without gradient."""
        raise NotImplementedError(f"{type(self).__name__} must define hardness()")

    def decode(self, class_logits: Tensor, deltas: Tensor, boxes: Tensor) -> ScoredBoxes:
        """A box and a score for every class of every box [r, 4]."""
        raise NotImplementedError(f"{type(self).__name__} must define decode()")

    def predictions(self, class_logits: Tensor, deltas: Tensor, boxes: Tensor) -> Predictions:
        """The logits and scores, and where the best class of each box [r, 4] moves it, without gradient."""
        class_logits, deltas = class_logits.detach(), deltas.detach()
        scored = self.decode(class_logits, deltas, boxes)
        return Predictions(class_logits, scored.best_boxes(), scored.scores)


class ROIHeads(Role):
    """(feature_shapes, num_classes) | (features, proposals, batch) -> B Detections or None, losses.

    `proposal_type` is what it must be given, a subclass of Proposals if it reads more of them than these have.
    """

    box_dim = 4
    proposal_type: type[Proposals] = Proposals

    def forward(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[list[Detections] | None, dict[str, Tensor]]:
        return super().forward(features, proposals, batch)

    def predict(
        self, features: Features, boxes_per_image: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Class scores of given boxes, and where each class moves them, clipped to the image (h, w)."""
        raise NotImplementedError(f"{type(self).__name__} must define predict()")

    def predict_branches(self, features: Features, detections: Sequence[Detections]) -> list[Detections]:
        """Masks, keypoints and whatever else branches find in given boxes; nothing, where there are none."""
        return list(detections)


class ROIBranch(Role):
    """(feature_shapes, num_classes, shared_shape) | masks and keypoints: what follows the boxes.

    In training `(features, rois, targets, shared) -> losses`; in evaluation
    `.predict(features, detections, shared) -> detections`. `shared` gives the map that the box head makes of a box, of
    `shared_shape`, for a branch without a pooler of its own; both are None where the box head keeps no map.
    `detection_fields` names what of Detections `predict` fills, such as ("masks",): an evaluator that needs it can then
    refuse, before anything runs, a detector without it.
    """

    box_dim = 4
    detection_fields: tuple[str, ...] = ()

    def forward(
        self,
        features: Features,
        rois: Sequence[Rois],
        targets: Sequence[Targets],
        shared: SharedFeatures | None = None,
    ) -> dict[str, Tensor]:
        return super().forward(features, rois, targets, shared)

    def predict(
        self, features: Features, detections: Sequence[Detections], shared: SharedFeatures | None = None
    ) -> list[Detections]:
        raise NotImplementedError(f"{type(self).__name__} must define predict()")


DETECTORS = Registry(Detector, wiring=("num_classes",))
BACKBONES = Registry(Backbone)
NECKS = Registry(Neck, wiring=("feature_shapes",))
ANCHOR_GENERATORS = Registry(AnchorGenerator, wiring=("strides",))
RPN_HEADS = Registry(RPNHead, wiring=("in_channels", "num_anchors"))
MATCHERS = Registry(Matcher)
SAMPLERS = Registry(Sampler)
BOX_LOSSES = Registry(BoxLoss)
CLASS_LOSSES = Registry(ClassLoss, wiring=("num_classes",))
NMS_METHODS = Registry(NMS)
PROPOSAL_GENERATORS = Registry(ProposalGenerator, wiring=("feature_shapes",))
ROI_POOLERS = Registry(ROIPooler, wiring=("feature_shapes",))
BOX_HEADS = Registry(BoxHead, wiring=("in_channels", "resolution"))
BOX_PREDICTORS = Registry(BoxPredictor, wiring=("in_channels", "num_classes"))
ROI_HEADS = Registry(ROIHeads, wiring=("feature_shapes", "num_classes"))
ROI_BRANCHES = Registry(ROIBranch, wiring=("feature_shapes", "num_classes", "shared_shape"))
