"""Data sets in COCO's form: one JSON file and a folder of images."""

from __future__ import annotations

import logging
import os
from typing import Literal, NamedTuple

import numpy as np

from frcnn.data.annotation_store import AnnotationStore
from frcnn.data.annotations import read_annotations
from frcnn.data.images import check_size, read_image
from frcnn.data.keypoints import keypoint_names, mirror_index
from frcnn.data.proposals import ProposalStore, read_proposals
from frcnn.data.roles import DATASETS, Category, Dataset, GroundTruth, Sample
from frcnn.errors import UserError

logger = logging.getLogger(__name__)

ROOT_VARIABLE, DEFAULT_ROOT = "FRCNN_DATASETS", "datasets"


class _Loaded(NamedTuple):
    store: AnnotationStore
    folder: str
    keypoint_mirror: np.ndarray | None
    proposals: ProposalStore | None


@DATASETS.register
class CocoDataset(Dataset):
    """Images and objects of a COCO JSON file, read at first use.

    Args:
        annotations: path of the JSON file; a relative one is looked up under FRCNN_DATASETS (default: datasets).
        images: folder that the file names in the JSON file are relative to; looked up likewise.
        images_without_objects: keep them as background, or drop them (those with crowds only, too).
        on_bad_annotation: error stops at annotations that cannot be used; skip leaves them out and counts them.
        masks: whether to read the objects' masks, to learn them; they can be measured without.
        keypoints: whether to read the objects' keypoints, to learn them or to measure them.
        min_keypoints_per_image: images whose objects have fewer labelled keypoints, all together, are left out; for training.
        proposals: path of a file of proposals, looked up likewise: JSON in the form of COCO's results (for each its
            image_id, bbox and score), or a .pkl in detectron2's form. Needed by PrecomputedProposals.
        proposals_top_n: how many proposals of an image are kept, those with the highest scores.
    """

    def __init__(
        self,
        *,
        annotations: str,
        images: str,
        images_without_objects: Literal["keep", "drop"] = "keep",
        on_bad_annotation: Literal["error", "skip"] = "error",
        masks: bool = False,
        keypoints: bool = False,
        min_keypoints_per_image: int = 0,
        proposals: str | None = None,
        proposals_top_n: int = 2000,
    ) -> None:
        if min_keypoints_per_image < 0:
            raise ValueError(f"min_keypoints_per_image must be at least 0, got {min_keypoints_per_image}")
        if min_keypoints_per_image and not keypoints:
            raise ValueError(f"min_keypoints_per_image is {min_keypoints_per_image}, which needs keypoints: true")
        if proposals_top_n < 1:
            raise ValueError(f"proposals_top_n must be at least 1, got {proposals_top_n}")
        self.annotations = annotations
        self.images = images
        self.images_without_objects = images_without_objects
        self.on_bad_annotation = on_bad_annotation
        self.masks = masks
        self.keypoints = keypoints
        self.min_keypoints_per_image = min_keypoints_per_image
        self.proposals = proposals
        self.proposals_top_n = proposals_top_n
        asked = {"masks": masks, "keypoints": keypoints, "proposals": proposals is not None}
        self.provides = frozenset(name for name, is_asked in asked.items() if is_asked)
        self._loaded: _Loaded | None = None

    def load(self) -> AnnotationStore:
        """Reads and checks the annotations, once, and logs what was found. Every other method calls it.

        Raises:
            UserError: a path does not exist, or the annotations cannot be used.
        """
        return self._load().store

    def _load(self) -> _Loaded:
        if self._loaded is None:
            path = find_under_root(self.annotations, "annotation file")
            folder = find_under_root(self.images, "image folder")
            store = read_annotations(
                path,
                images_without_objects=self.images_without_objects,
                on_bad_annotation=self.on_bad_annotation,
                masks=self.masks,
                keypoints=self.keypoints,
                min_keypoints=self.min_keypoints_per_image,
            )
            counts, *findings = store.notes
            logger.info("%s: %s", self.annotations, counts)
            for finding in findings:
                logger.warning("%s: %s", self.annotations, finding)
            proposals = None
            if self.proposals is not None:
                proposals_path = find_under_root(self.proposals, "proposal file")
                proposals = read_proposals(proposals_path, store.image_ids, self.proposals_top_n)
                logger.info("%s: %s", self.proposals, proposals.note)
            mirror = mirror_index(keypoint_names(store.categories, path)) if self.keypoints else None
            self._loaded = _Loaded(store, folder, mirror, proposals)
        return self._loaded

    @property
    def categories(self) -> tuple[Category, ...]:  # type: ignore[override]
        return self.load().categories

    @property
    def image_sizes(self) -> np.ndarray:
        return self.load().image_sizes

    def __len__(self) -> int:
        return len(self.load())

    def __getitem__(self, index: int) -> Sample:
        store, folder, mirror, proposals = self._load()
        image_id = int(store.image_ids[index])
        height, width = store.image_sizes[index].tolist()
        path = os.path.join(folder, store.file_name(index))
        image = read_image(path, f"image id {image_id}")  # [h, w, 3]
        check_size(image, (height, width), f"{path} (image id {image_id})")
        boxes, classes = store.targets(index)
        return Sample(
            image,
            boxes,
            classes,
            image_id,
            (height, width),
            masks=store.masks(index) if self.masks else None,
            keypoints=store.keypoints(index) if self.keypoints else None,
            keypoint_mirror=mirror,
            proposals=None if proposals is None else proposals.boxes(index, height, width),
        )

    def ground_truth(self) -> GroundTruth:
        return self.load().ground_truth()


def find_under_root(path: str, what: str) -> str:
    """The absolute path of a part of a data set.

    Args:
        path: absolute, or relative to the folder in FRCNN_DATASETS.
        what: what is looked for, in messages.

    Raises:
        UserError: there is nothing at that path, or it is an address.
    """
    if "://" in path:
        address = path.replace("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/")
        raise UserError(
            f"{path}: data sets are not downloaded; fetch the {what} from {address}, put it under {ROOT_VARIABLE} and write "
            "its path into the config"
        )
    root = os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT
    full = os.path.abspath(os.path.join(root, os.path.expanduser(path)))
    if os.path.exists(full):
        return full
    if os.path.isabs(os.path.expanduser(path)):
        raise UserError(f"{full}: there is no such {what}; correct the path in the config")
    setting = (
        f"is '{root}'"
        if os.environ.get(ROOT_VARIABLE)
        else f"is not set, so '{DEFAULT_ROOT}' in the working folder is used"
    )
    raise UserError(
        f"{full}: there is no such {what}; '{path}' is looked up under {ROOT_VARIABLE}, which {setting}: set it to the "
        "folder that holds your data sets, or put the data there"
    )
