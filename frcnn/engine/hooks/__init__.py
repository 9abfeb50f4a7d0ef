"""The hooks that come with the framework."""

from frcnn.engine.hooks.best import BestCheckpoint, EarlyStop
from frcnn.engine.hooks.checkpoint import SaveCheckpoint
from frcnn.engine.hooks.ema import EMA
from frcnn.engine.hooks.evaluate import Evaluate, SavePictures, ValidationLoss
from frcnn.engine.hooks.guard import NaNGuard
from frcnn.engine.hooks.log import LogMetrics
from frcnn.engine.hooks.precise_bn import PreciseBN
from frcnn.engine.hooks.profile import Profile

__all__ = [
    "EMA",
    "BestCheckpoint",
    "EarlyStop",
    "Evaluate",
    "LogMetrics",
    "NaNGuard",
    "PreciseBN",
    "Profile",
    "SaveCheckpoint",
    "SavePictures",
    "ValidationLoss",
]
