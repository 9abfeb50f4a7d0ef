"""What branches share that look at one object at a time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from frcnn.config import Factory
from frcnn.errors import UserError
from frcnn.modeling.features import shapes_of
from frcnn.modeling.losses.options import not_negative
from frcnn.modeling.roles import Features, FeatureShapes, ROIBranch, ROIPooler, SharedFeatures
from frcnn.structures import Rois, ROIShape, Targets


class InstanceBranch(ROIBranch):
    """A branch that is trained on the ROIs of objects, and reads what its own pooler or the box head makes of a box."""

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        num_classes: int,
        shared_shape: ROIShape | None,
        *,
        in_features: Sequence[str],
        pooler: Factory[ROIPooler] | None,
        loss_weight: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.loss_weight = not_negative(loss_weight)
        self.roi_pool: ROIPooler | None = None
        if pooler is not None:
            shapes = dict(zip(in_features, shapes_of(in_features, feature_shapes), strict=True))
            self.roi_pool = pooler(shapes)
            self.roi_shape = ROIShape(self.roi_pool.out_channels, self.roi_pool.resolution)
        elif in_features:
            raise ValueError(f"without a pooler nothing is read from in_features, got {list(in_features)}")
        elif shared_shape is None:
            raise ValueError(
                f"{type(self).__name__} without a pooler reads the map that the box head makes of a box, and this box head "
                "makes none: give the branch in_features and a pooler"
            )
        else:
            self.roi_shape = shared_shape

    def roi_features(
        self, features: Features, boxes_per_image: Sequence[Tensor], shared: SharedFeatures | None
    ) -> Tensor:
        """B x [r, 4] -> [R, C, h, w] of `roi_shape`."""
        if self.roi_pool is not None:
            return self.roi_pool(features, boxes_per_image)
        assert shared is not None  # the constructor asked for its shape
        return shared(boxes_per_image)

    def positives(self, rois: Sequence[Rois]) -> list[Rois]:
        """The ROIs that stand for an object."""
        return [r.select(r.classes < self.num_classes) for r in rois]


def require_targets(branch: ROIBranch, targets: Sequence[Targets]) -> None:
    """Refuses targets that lack what a branch is trained on.

    Raises:
        UserError: an image has no masks or no keypoints, which is not the same as having no objects.
    """
    for name in branch.detection_fields:
        if any(getattr(t, name) is None for t in targets):
            raise UserError(
                f"{type(branch).__name__} is trained on {name}, and the data set gives none: take one whose annotations "
                "have them, or remove the branch from model.roi_heads.branches"
            )
