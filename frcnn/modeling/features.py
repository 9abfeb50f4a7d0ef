"""The checks that parts make of the feature maps they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from frcnn.modeling.roles import FeatureShapes, Matcher
from frcnn.structures import FeatureShape


def check_out_features(chosen: Sequence[str], names: Sequence[str]) -> None:
    """Refuses an empty choice, an unknown name, and a name given twice.

    Args:
        chosen: what the user asked for.
        names: what the backbone has.

    Raises:
        ValueError: with the names to choose from.
    """
    if not chosen or not set(chosen) <= set(names) or len(set(chosen)) < len(chosen):
        raise ValueError(f"out_features must be different names out of {', '.join(names)}, got {list(chosen)}")


def shapes_of(in_features: Sequence[str], feature_shapes: FeatureShapes) -> list[FeatureShape]:
    """The shapes of the maps that a part reads, in its order.

    Args:
        in_features: the names it was given.
        feature_shapes: what there is.

    Raises:
        ValueError: no name, one that is not there, or one twice.
    """
    missing = [name for name in in_features if name not in feature_shapes]
    if missing:
        raise ValueError(
            f"in_features has {', '.join(missing)}, which is none of the feature maps {', '.join(feature_shapes)}"
        )
    if not in_features:
        raise ValueError(f"in_features must name feature maps of {', '.join(feature_shapes)}")
    if len(set(in_features)) < len(in_features):
        raise ValueError(f"in_features must name each feature map once, got {', '.join(in_features)}")
    return [feature_shapes[name] for name in in_features]


def common_channels_and_strides(
    feature_shapes: FeatureShapes, in_features: Sequence[str]
) -> tuple[int, tuple[int, ...]]:
    """The width that the maps a head reads have in common, and their strides.

    Raises:
        ValueError: a name is not there, the maps differ in width, or they do not go from fine to coarse.
    """
    shapes = shapes_of(in_features, feature_shapes)
    widths = sorted({shape.channels for shape in shapes})
    if len(widths) != 1:
        raise ValueError(
            f"in_features must all have the same number of channels, got {widths}: an FPN gives them one width"
        )
    strides = tuple(shape.stride for shape in shapes)
    if list(strides) != sorted(strides):  # sizes of anchors, given level by level, would go to the wrong levels
        raise ValueError(
            f"in_features must go from fine to coarse, but {', '.join(in_features)} have strides {strides}"
        )
    return widths[0], strides


def check_num_levels(matcher: Matcher, num_levels: int) -> None:
    """Refuses a matcher that is made for another number of levels.

    Args:
        matcher: that is to be given the candidates.
        num_levels: how many levels of candidates there are.

    Raises:
        ValueError: with both numbers.
    """
    if matcher.num_levels not in (None, num_levels):
        raise ValueError(
            f"{type(matcher).__name__} is made for {matcher.num_levels} levels of candidates, but here it gets {num_levels}"
        )
