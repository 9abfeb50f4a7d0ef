"""The values that pass between the parts: frozen dataclasses with named fields.

Shapes use the letters of the whole framework: B images, N candidates of one image, G ground truths of one image,
R sampled ROIs, K classes without background. Boxes are float32, absolute x1 y1 x2 y2.
"""

from frcnn.structures.batch import Batch
from frcnn.structures.detections import Detections, EncodedMasks, Output, ScoredBoxes
from frcnn.structures.draws import DrawKey
from frcnn.structures.feature_shapes import FeatureShape, ROIShape
from frcnn.structures.matches import BACKGROUND_LABEL, DISCARD_LABEL, POSITIVE_LABEL, Candidates, Matches, Predictions
from frcnn.structures.regions import Proposals, Rois
from frcnn.structures.targets import InstanceMasks, Targets

__all__ = [
    "BACKGROUND_LABEL",
    "DISCARD_LABEL",
    "POSITIVE_LABEL",
    "Batch",
    "Candidates",
    "Detections",
    "DrawKey",
    "EncodedMasks",
    "FeatureShape",
    "InstanceMasks",
    "Matches",
    "Output",
    "Predictions",
    "Proposals",
    "ROIShape",
    "Rois",
    "ScoredBoxes",
    "Targets",
]
