"""Proposals that another model or method made, read from a file and kept in columns that all workers share."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from frcnn.data.annotation_checks import look_up
from frcnn.data.coco_json import CHUNK
from frcnn.data.json_text import decode_each, map_file
from frcnn.data.proposal_pickles import best_of, read_pickled
from frcnn.data.shared import SharedArrays
from frcnn.errors import UserError


class _Proposal(msgspec.Struct, gc=False):
    image_id: int
    bbox: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class ProposalStore:
    """The proposals of every image of a data set, the best first.

    The columns are, for n images and p proposals sorted by image and score: `offsets` [n + 1] and `boxes` [p, 4] float32
    x1 y1 x2 y2 as in the file.

    Args:
        columns: the arrays.
        note: counts, for a person.
    """

    columns: SharedArrays
    note: str

    def boxes(self, image: int, height: int, width: int) -> np.ndarray:
        """[P, 4] float32, the proposals of one image of that size, clipped to it."""
        start, stop = self.columns["offsets"][image : image + 2]
        boxes = self.columns["boxes"][start:stop].clip(0, np.array([width, height, width, height], np.float32))
        return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def read_proposals(path: str, image_ids: np.ndarray, top_n: int) -> ProposalStore:
    """Reads the proposals of a data set.

    Args:
        path: a JSON file in the form of COCO's results, a list of objects with image_id, bbox [x, y, w, h] and score; or a
            `.pkl` in detectron2's form (see `proposal_pickles`).
        image_ids: [n] of the data set; proposals for other images are left out.
        top_n: how many of an image are kept.

    Raises:
        UserError: the file is not of that form, holds boxes that cannot be used, or says nothing about an image.
    """
    return (_from_pickle if path.endswith(".pkl") else _from_json)(path, image_ids, top_n)


def _from_json(path: str, image_ids: np.ndarray, top_n: int) -> ProposalStore:
    rows = _read(path)
    image = look_up(rows[:, 0].astype(np.int64), image_ids)  # [p], -1 for images that are not in the data set
    boxes, scores = rows[:, 1:5], rows[:, 5]
    wrong = np.flatnonzero(~((boxes[:, 2:] > 0).all(axis=1) & np.isfinite(rows).all(axis=1)))
    if len(wrong):
        raise UserError(
            f"{path}: {len(wrong):,} of {len(rows):,} proposals cannot be used, such as [{wrong[0]}] of image "
            f"{rows[wrong[0], 0]:.0f}: bbox {boxes[wrong[0]].tolist()} (x, y, width, height), score {scores[wrong[0]]}; "
            "expected finite numbers, width > 0 and height > 0; correct the file"
        )
    order = np.lexsort((-scores, image))[(image < 0).sum() :]
    offsets = np.searchsorted(image[order], np.arange(len(image_ids) + 1))
    _require_all(path, image_ids, np.diff(offsets) > 0)
    rank = np.arange(len(order)) - np.repeat(offsets[:-1], np.diff(offsets))
    kept = order[rank < top_n]
    corners = np.concatenate([boxes[kept, :2], boxes[kept, :2] + boxes[kept, 2:]], axis=1)
    return _store(np.minimum(np.diff(offsets), top_n), corners, len(rows))


def _from_pickle(path: str, image_ids: np.ndarray, top_n: int) -> ProposalStore:
    found = read_pickled(path)
    _require_all(path, image_ids, np.array([image_id in found.rows for image_id in image_ids.tolist()], bool))
    boxes = [best_of(found, image_id, path, top_n) for image_id in image_ids.tolist()]
    return _store(np.array(list(map(len, boxes))), np.concatenate(boxes), sum(array.size // 4 for array in found.boxes))


def _require_all(path: str, image_ids: np.ndarray, is_there: np.ndarray) -> None:
    missing = np.flatnonzero(~is_there)
    if len(missing):
        raise UserError(
            f"{path}: no proposals for {len(missing):,} of the {len(image_ids):,} images of the data set, such as image id "
            f"{image_ids[missing[0]]}; expected at least one for each: make them for all images, or leave these images out "
            "of the annotations"
        )


def _store(counts: np.ndarray, boxes: np.ndarray, num_in_file: int) -> ProposalStore:
    """The store of boxes [p, 4] x1 y1 x2 y2 that lie image after image, so many of each."""
    columns = {"offsets": np.concatenate([[0], np.cumsum(counts)]), "boxes": boxes.astype(np.float32)}
    note = f"{len(boxes):,} proposals, {counts.min():,} to {counts.max():,} an image, of {num_in_file:,} in the file"
    return ProposalStore(SharedArrays.create(columns), note)


def _read(path: str) -> np.ndarray:
    """[p, 6] float64: image_id, x, y, width, height, score."""
    try:
        items = msgspec.json.decode(map_file(path), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: {error}; expected proposals in the form of COCO's results: a JSON list of objects with image_id, "
            "bbox [x, y, width, height] and score (detectron2's end in .pkl)"
        ) from error
    chunks = [np.empty((0, 6))]
    for first in range(0, len(items), CHUNK):
        rows = decode_each(items[first : first + CHUNK], _Proposal, path, "proposals", first)
        chunks.append(np.array([(row.image_id, *row.bbox, row.score) for row in rows], np.float64))
    return np.concatenate(chunks)
