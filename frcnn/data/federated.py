"""Which classes an image was searched for, where a vocabulary is too large to search for all (LVIS), in columns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from frcnn.errors import UserError

FIELDS = {"absent": "neg_category_ids", "unfinished": "not_exhaustive_category_ids"}
"""Columns of the store, and what their lists are called in a file."""


def class_lists(
    name: str, lists: Sequence[Sequence[int]], category_ids: Sequence[int], image_ids: Sequence[int], path: str
) -> dict[str, np.ndarray]:
    """Lists of category ids, one for each image, as a flat column of classes and offsets.

    Args:
        name: "absent" or "unfinished".
        lists: n lists of category ids.
        category_ids: K ids in the order of classes.
        image_ids: n ids, for messages.
        path: the annotation file, for messages.

    Returns:
        `{name}_classes` [sum of lengths] and `{name}_offsets` [n + 1], int64.

    Raises:
        UserError: a category does not exist.
    """
    class_of = {category_id: k for k, category_id in enumerate(category_ids)}
    for image_id, ids in zip(image_ids, lists, strict=True):
        unknown = [i for i in ids if i not in class_of]
        if unknown:
            raise UserError(
                f"{path}: image id {image_id}: {FIELDS[name]} names category {unknown[0]}, which is not among the"
                f" {len(class_of)} categories; correct the file"
            )
    return {
        f"{name}_classes": np.array([class_of[i] for ids in lists for i in ids], np.int64),
        f"{name}_offsets": np.concatenate([[0], np.cumsum([len(ids) for ids in lists], dtype=np.int64)]),
    }


def lists_of(name: str, columns: Mapping[str, np.ndarray]) -> list[list[int]] | None:
    """The n lists of classes that `class_lists` has put into columns, or None if there are none."""
    if f"{name}_classes" not in columns:
        return None
    classes, offsets = columns[f"{name}_classes"].tolist(), columns[f"{name}_offsets"].tolist()
    return [classes[start:stop] for start, stop in itertools.pairwise(offsets)]
