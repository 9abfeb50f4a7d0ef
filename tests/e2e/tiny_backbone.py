"""A backbone of three convolutions, registered as a project does it, so that whole runs take seconds."""

from itertools import pairwise

from torch import nn

from frcnn.modeling.roles import BACKBONES, Backbone
from frcnn.structures import FeatureShape


@BACKBONES.register
class TinyBackbone(Backbone):
    """Strides 4, 8 and 16 with GroupNorm, which does not care how a batch is split over processes.

    Args:
        width: channels of the first map.
    """

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.feature_shapes = {f"res{i + 2}": FeatureShape(w, 4 * 2**i) for i, w in enumerate(widths)}
        self.size_divisibility = 16
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 4, 3), nn.GroupNorm(4, width), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(4, b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())
            for a, b in pairwise(widths)
        )

    def forward(self, images):
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return dict(zip(self.feature_shapes, maps, strict=True))
