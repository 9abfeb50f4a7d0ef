"""From the content of another framework's file to weights under our names, with an account of every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from frcnn.checkpoint.caffe2 import from_caffe2
from frcnn.checkpoint.conversion import Conversion
from frcnn.checkpoint.detectron2 import from_detectron2
from frcnn.checkpoint.kinds import Kind, entries_of, state_dict_of
from frcnn.checkpoint.torchvision import COCO_LABELS, from_torchvision

_COCO_SLOTS = 91


def convert(content: Any, kind: Kind, source: str) -> Conversion:
    """Gives the tensors of another framework's file our names.

    Args:
        content: what the file holds.
        kind: which framework wrote it; not ours.
        source: the file, for the table.

    Returns:
        an account of every tensor; those that no converter knows keep their names, so that loading lists them too.
    """
    theirs = state_dict_of(content)
    notes = []
    if kind is Kind.DETECTRON2:
        converted = from_detectron2(theirs)
    elif kind is Kind.CAFFE2:
        converted = from_caffe2(theirs)
    else:
        labels = _coco_labels(theirs)
        converted = from_torchvision(theirs, labels=labels)
        if kind is Kind.TORCHVISION_DETECTOR:
            notes.append("background: the first class there, the last here; it has no boxes and no masks here")
        if labels is not None:
            notes.append(f"classes: COCO uses {len(labels)} of the {_COCO_SLOTS} slots; the others are left out")
    no_tensors = [name for name, value in entries_of(content).items() if not isinstance(value, Tensor)]
    return Conversion(
        source=source,
        kind=str(kind),
        theirs=theirs,
        ours={**converted.state_dict, **{name: theirs[name] for name in converted.unused}},
        origins=converted.origins,
        left_out={**converted.left_out, **dict.fromkeys(map(str, no_tensors), "not a tensor")},
        unknown=converted.unused,
        notes=notes,
    )


def author_of(content: Any) -> str | None:
    """Who wrote a file, as it says itself: detectron2's files have `__author__`."""
    author = content.get("__author__") if isinstance(content, Mapping) else None
    return author if isinstance(author, str) else None


def _coco_labels(state_dict: Mapping[str, Tensor]) -> Sequence[int] | None:
    """The labels of COCO's 80 classes, if this is a detector with the 91 slots that torchvision publishes."""
    scores = state_dict.get("roi_heads.box_predictor.cls_score.bias")
    return COCO_LABELS if scores is not None and len(scores) == _COCO_SLOTS else None
