"""The checks that a detector makes of parts that were chosen apart and must fit each other."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from frcnn.modeling.roles import PROPOSAL_GENERATORS, BoxPredictor, Detector, ProposalGenerator, ROIHeads, Role

MADE_OF_PARTS = (ProposalGenerator, ROIHeads, BoxPredictor)
"""Roles whose parts are chosen too; what the others have inside is their own matter."""


def check_proposal_type(proposal_generator: ProposalGenerator, roi_heads: ROIHeads) -> None:
    """Refuses ROI heads that read more of a proposal than the generator gives.

    Raises:
        ValueError: with the generators that give it.
    """
    given, wanted = proposal_generator.proposal_type, roi_heads.proposal_type
    if not issubclass(given, wanted):
        components = PROPOSAL_GENERATORS.components.items()
        fitting = sorted(name for name, generator in components if issubclass(generator.proposal_type, wanted))
        raise ValueError(
            f"{type(roi_heads).__name__} reads {wanted.__name__}, but {type(proposal_generator).__name__} gives "
            f"{given.__name__}: choose other roi_heads, or as proposal_generator {' or '.join(fitting) or 'another'}"
        )


def check_box_dim(detector: Detector) -> None:
    """Refuses a part whose boxes have another number of numbers than the detector's.

    Raises:
        ValueError: names the part, and its place in the detector.
    """
    for place, part in chosen_parts(detector, ""):
        if part.box_dim not in (None, detector.box_dim):
            raise ValueError(
                f"{type(detector).__name__} has boxes of {detector.box_dim} numbers, but its {place}, "
                f"{type(part).__name__}, is for boxes of {part.box_dim}"
            )


def chosen_parts(module: nn.Module, place: str) -> Iterator[tuple[str, Role]]:
    """Every part that was chosen for a module or for a part of it, with its place, parents first."""
    for name, child in module.named_children():
        if isinstance(child, Role):
            yield place + name, child
        if not isinstance(child, Role) or isinstance(child, MADE_OF_PARTS):
            yield from chosen_parts(child, f"{place}{name}.")
