"""Box predictors: the last layers of the second stage, their losses, and the boxes and scores they stand for."""

from frcnn.modeling.box_predictors.cosine import CosinePredictor
from frcnn.modeling.box_predictors.fast_rcnn import (
    FastRCNNPredictor,
    concatenate,
    fastrcnn_loss,
    positive_box_losses,
)

__all__ = ["CosinePredictor", "FastRCNNPredictor", "concatenate", "fastrcnn_loss", "positive_box_losses"]
