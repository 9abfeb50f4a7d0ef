"""Matchers: which ground truth each candidate box stands for, and whether it counts as a positive or a negative."""

from frcnn.modeling.matchers.atss import ATSSMatcher
from frcnn.modeling.matchers.fcos import FCOSMatcher
from frcnn.modeling.matchers.hungarian import HungarianMatcher
from frcnn.modeling.matchers.iou import IoUMatcher
from frcnn.modeling.matchers.region import RegionMatcher
from frcnn.modeling.matchers.simota import SimOTAMatcher
from frcnn.modeling.matchers.task_aligned import TaskAlignedMatcher

__all__ = [
    "ATSSMatcher",
    "FCOSMatcher",
    "HungarianMatcher",
    "IoUMatcher",
    "RegionMatcher",
    "SimOTAMatcher",
    "TaskAlignedMatcher",
]
