"""The modules whose components a config can name."""

from __future__ import annotations

import importlib

COMPONENT_MODULES = (
    "frcnn.data.coco",
    "frcnn.data.image_samplers",
    "frcnn.data.mixing",
    "frcnn.data.subsets",
    "frcnn.data.transforms",
    "frcnn.modeling.anchors",
    "frcnn.modeling.backbones",
    "frcnn.modeling.box_heads",
    "frcnn.modeling.box_predictors",
    "frcnn.modeling.branches",
    "frcnn.modeling.cascade",
    "frcnn.modeling.cascade_rpn",
    "frcnn.modeling.detector",
    "frcnn.modeling.double_head",
    "frcnn.modeling.dynamic",
    "frcnn.modeling.fcos",
    "frcnn.modeling.groie",
    "frcnn.modeling.losses",
    "frcnn.modeling.matchers",
    "frcnn.modeling.necks",
    "frcnn.modeling.nms",
    "frcnn.modeling.poolers",
    "frcnn.modeling.precomputed_proposals",
    "frcnn.modeling.res5_roi_heads",
    "frcnn.modeling.residual_box_head",
    "frcnn.modeling.roi_heads",
    "frcnn.modeling.rpn",
    "frcnn.modeling.rpn_head",
    "frcnn.modeling.samplers",
    "frcnn.evaluation.coco",
    "frcnn.evaluation.lvis",
    "frcnn.evaluation.proposals",
    "frcnn.evaluation.voc",
    "frcnn.engine.hooks",
    "frcnn.engine.optim",
    "frcnn.engine.schedules",
)


def register_components() -> None:
    """Imports the modules whose components a config can name without `imports:`."""
    for module in COMPONENT_MODULES:
        importlib.import_module(module)
