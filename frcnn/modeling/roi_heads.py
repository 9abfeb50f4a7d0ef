"""The second part of the detector: classifies proposals and moves their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from frcnn.config import Factory
from frcnn.modeling.features import check_num_levels, shapes_of
from frcnn.modeling.modes import unobserved
from frcnn.modeling.postprocess import Postprocess, SelectDetections
from frcnn.modeling.roi_sampling import candidate_boxes, moved_rois, sample_rois, sampling_counts
from frcnn.modeling.roles import (
    ROI_HEADS,
    BoxHead,
    BoxPredictor,
    Features,
    FeatureShapes,
    Matcher,
    ROIBranch,
    ROIHeads,
    ROIPooler,
    Sampler,
    SharedFeatures,
)
from frcnn.ops.boxes import clip_boxes
from frcnn.structures import (
    Batch,
    Candidates,
    Detections,
    Matches,
    Proposals,
    Rois,
    ROIShape,
    ScoredBoxes,
    Targets,
)


class BoxROIHeads(ROIHeads):
    """What all ROI heads share: losses where there are targets, detections in evaluation, branches behind the boxes."""

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: Sequence[str],
        pooler: Factory[ROIPooler],
        postprocess: Postprocess,
        append_gt: bool,
    ) -> None:
        super().__init__()
        shapes = dict(zip(in_features, shapes_of(in_features, feature_shapes), strict=True))
        self.num_classes = num_classes
        self.append_gt = append_gt
        self.box_roi_pool = pooler(shapes)
        self.postprocess = SelectDetections(postprocess)
        self.branches: Mapping[str, ROIBranch] = {}

    def add_branches(
        self,
        branches: Mapping[str, Factory[ROIBranch]],
        feature_shapes: FeatureShapes,
        shared_shape: ROIShape | None = None,
    ) -> None:
        """Builds what follows the boxes; the last thing a constructor does, when the box head is there.

        Args:
            branches: by name: masks, keypoints.
            feature_shapes: of all maps.
            shared_shape: of what `shared_features` gives, None where that gives None.
        """
        built = {name: branch(feature_shapes, self.num_classes, shared_shape) for name, branch in branches.items()}
        self.branches = cast(Mapping[str, ROIBranch], nn.ModuleDict(built))

    def forward(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[list[Detections] | None, dict[str, Tensor]]:
        losses: dict[str, Tensor] = {}
        if batch.targets is not None:
            losses, rois = self.compute_losses(features, proposals, batch)
            for branch in self.branches.values():
                losses.update(branch(features, rois, batch.targets, self.shared_features(features)))
        elif self.training:
            raise ValueError("ROI heads in training mode need targets; call eval() on the model to predict")
        if self.training:
            return None, losses

        scored = self.predict(features, [p.boxes for p in proposals], batch.image_sizes)
        detections = [self.postprocess(scored_in_image) for scored_in_image in scored]
        return self.predict_branches(features, detections), losses

    def predict_branches(self, features: Features, detections: Sequence[Detections]) -> list[Detections]:
        """Adds masks, keypoints and whatever else the branches find in given boxes.

        Args:
            features: maps [B, C, H, W].
            detections: B Detections in the pixels of the image the network sees.

        Returns:
            the same detections, with what was found.
        """
        shared = self.shared_features(features)
        for branch in self.branches.values():
            detections = branch.predict(features, detections, shared)
        return list(detections)

    def shared_features(self, features: Features) -> SharedFeatures | None:
        """What gives branches without a pooler the map that the box head makes of a box; None where it makes none."""
        return None

    def compute_losses(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[dict[str, Tensor], list[Rois]]:
        """The losses of the boxes, and the ROIs that branches are trained on."""
        raise NotImplementedError(f"{type(self).__name__} must define compute_losses()")


@ROI_HEADS.register
class StandardROIHeads(BoxROIHeads):
    """Pools proposals from the feature maps, classifies them and moves their boxes, once (Fast R-CNN).

    Args:
        in_features: the maps that are pooled from, fine to coarse.
        matcher: decides which ground truth a proposal stands for.
        sampler: decides which proposals are trained on.
        pooler: features of a fixed size for every box.
        box_head: from pooled features to a vector.
        box_predictor: from the vector to classes and boxes.
        postprocess: from scored boxes to detections.
        branches: what follows the boxes, by name: masks, keypoints.
        append_gt: whether ground truths are added to the proposals in training.
        train_on_pred_boxes: whether branches are trained on the boxes that the predictor made of the sampled proposals,
            as they will be used, and not on the proposals.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        *,
        in_features: tuple[str, ...],
        matcher: Matcher,
        sampler: Sampler,
        pooler: Factory[ROIPooler],
        box_head: Factory[BoxHead],
        box_predictor: Factory[BoxPredictor],
        postprocess: Postprocess,
        branches: dict[str, Factory[ROIBranch]],
        append_gt: bool = True,
        train_on_pred_boxes: bool = False,
    ) -> None:
        super().__init__(
            feature_shapes,
            num_classes,
            in_features=in_features,
            pooler=pooler,
            postprocess=postprocess,
            append_gt=append_gt,
        )
        self.train_on_pred_boxes = train_on_pred_boxes
        self.matcher = matcher
        check_num_levels(matcher, 1)
        self.sampler = sampler
        self.box_head = box_head(self.box_roi_pool.out_channels, self.box_roi_pool.resolution)
        self.box_predictor = box_predictor(self.box_head.out_channels, num_classes)
        self.add_branches(branches, feature_shapes, self.box_head.shared_shape)

    def run_head(self, features: Features, boxes_per_image: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B x [r, 4] -> class_logits [R, num_logits], deltas [R, 4K or 4]."""
        pooled = self.box_roi_pool(features, boxes_per_image)  # [R, C, h, w]
        return self.box_predictor(self.box_head(pooled))

    def shared_features(self, features: Features) -> SharedFeatures | None:
        if self.box_head.shared_shape is None:
            return None
        return lambda boxes_per_image: self.box_head.shared_map(self.box_roi_pool(features, boxes_per_image))

    def compute_losses(
        self, features: Features, proposals: Sequence[Proposals], batch: Batch
    ) -> tuple[dict[str, Tensor], list[Rois]]:
        rois = self.select_training_samples(features, proposals, batch)
        class_logits, deltas = self.run_head(features, [r.boxes for r in rois])
        losses = self.box_predictor.losses(class_logits, deltas, rois) | sampling_counts(rois, self.num_classes)
        if self.train_on_pred_boxes:
            boxes_per_image = [r.boxes for r in rois]
            scored = scored_boxes(
                self.box_predictor, class_logits.detach(), deltas.detach(), boxes_per_image, batch.image_sizes
            )
            rois = list(map(moved_rois, rois, scored))
        return losses, rois

    def select_training_samples(self, features: Features, proposals: Sequence[Proposals], batch: Batch) -> list[Rois]:
        """Adds the ground truths to the proposals, matches both with them, and samples.

        Args:
            features: maps [B, C, H, W]; only read when the matcher or the sampler asks what the head says.
            proposals: B Proposals.
            batch: with targets.

        Returns:
            B Rois, positives first.
        """
        assert batch.targets is not None

        def run_head(boxes_per_image: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            with unobserved(self):  # a subclass may have more heads than one
                return self.run_head(features, boxes_per_image)

        return sample_rois(
            candidate_boxes(proposals, batch.targets, self.append_gt),
            batch,
            match=self.assign_targets_to_proposals,
            sampler=self.sampler,
            box_predictor=self.box_predictor,
            run_head=run_head,
            purpose="roi_heads",
        )

    def assign_targets_to_proposals(self, candidates: Candidates, targets: Targets) -> Matches:
        """Which ground truth each candidate of one image stands for."""
        return self.matcher(candidates, targets)

    def predict(
        self, features: Features, boxes_per_image: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Scores of given boxes (test-time augmentation, feature extraction).

        Args:
            features: maps [B, C, H, W].
            boxes_per_image: B x [r, 4].
            image_sizes: B x (h, w) that the boxes are clipped to.

        Returns:
            B ScoredBoxes.
        """
        class_logits, deltas = self.run_head(features, boxes_per_image)
        return scored_boxes(self.box_predictor, class_logits, deltas, boxes_per_image, image_sizes)


def scored_boxes(
    box_predictor: BoxPredictor,
    class_logits: Tensor,
    deltas: Tensor,
    boxes_per_image: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
) -> list[ScoredBoxes]:
    """What a predictor's output [R, ...] means for the boxes of each image, clipped to the image.

    Args:
        box_predictor: whose output it is.
        class_logits: [R, num_logits], image after image.
        deltas: [R, 4K or 4].
        boxes_per_image: B x [r, 4] that the head was run on.
        image_sizes: B x (h, w).

    Returns:
        B ScoredBoxes.
    """
    counts = [boxes.shape[0] for boxes in boxes_per_image]  # len() would ask an exported graph for a number
    scored = map(box_predictor.decode, class_logits.split(counts), deltas.split(counts), boxes_per_image)
    return [replace(s, boxes=clip_boxes(s.boxes, size)) for s, size in zip(scored, image_sizes, strict=True)]
