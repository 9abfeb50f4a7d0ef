"""The values that pass between the parts: frozen dataclasses with named fields.

Shapes use the letters of the whole framework: B images, N candidates of one image, G ground truths of one image,
R sampled ROIs, K classes without background. Boxes are float32, absolute x1 y1 x2 y2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

BACKGROUND_LABEL, DISCARD_LABEL, POSITIVE_LABEL = 0, -1, 1


@dataclass(frozen=True)
class FeatureShape:
    """Width and stride of one feature map."""

    channels: int
    stride: int


@dataclass(frozen=True)
class ROIShape:
    """Width, and cells along each side, of the features of one ROI."""

    channels: int
    resolution: int


@dataclass(frozen=True)
class InstanceMasks:
    """The masks of the objects of one image, each cut to a window of its own, one behind the other in one flat tensor.

    So a hundred small objects in a large image take as much memory as their boxes, not as a hundred images.

    Args:
        pixels: [sum of h w] uint8, 0 or 1, mask after mask, row by row.
        windows: [G, 4] int64, x1 y1 x2 y2 of each window in the image (x2, y2 exclusive); outside of it the mask is 0.
    """

    pixels: Tensor
    windows: Tensor

    def __len__(self) -> int:
        return len(self.windows)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> InstanceMasks:
        return InstanceMasks(
            self.pixels.to(device, non_blocking=non_blocking), self.windows.to(device, non_blocking=non_blocking)
        )


@dataclass(frozen=True)
class Targets:
    """Ground truth of one image, in the pixels of the image the network sees.

    Args:
        boxes: [G, 4].
        classes: [G] int64 in 0..K-1.
        masks: of the G objects, or None where the data set has no segmentation.
        keypoints: [G, J, 3] x, y and visibility (0 not labelled, 1 hidden, 2 seen), or None where there are none.
    """

    boxes: Tensor
    classes: Tensor
    masks: InstanceMasks | None = None
    keypoints: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def class_agnostic(self) -> Targets:
        """The same objects, all of class 0 (what a proposal generator looks for)."""
        return replace(self, classes=torch.zeros_like(self.classes))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        return Targets(
            boxes=self.boxes.to(device, non_blocking=non_blocking),
            classes=self.classes.to(device, non_blocking=non_blocking),
            masks=None if self.masks is None else self.masks.to(device, non_blocking),
            keypoints=None if self.keypoints is None else self.keypoints.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True)
class Predictions:
    """What the model now says of the candidates of one image, without gradient.

    Args:
        logits: [N, number of logits of the class loss].
        boxes: [N, 4] decoded boxes (of a class-specific predictor: for each candidate's best class).
        scores: [N, K] in 0..1, what the class loss makes of the logits; K is 1 in a proposal generator.
    """

    logits: Tensor
    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Candidates:
    """What a matcher may look at: the candidates of one image, and on demand what the model says of them.

    Args:
        boxes_per_level: L x [N_l, 4]; candidate order is level, y, x, anchor.
        predictions: computes logits, scores and decoded boxes when called; a matcher that does not call it pays nothing.
        image_size: (h, w) of the image before padding, for what is measured in parts of the image.
    """

    boxes_per_level: Sequence[Tensor]
    predictions: Callable[[], Predictions] | None = None
    image_size: tuple[int, int] | None = None

    @property
    def boxes(self) -> Tensor:  # [N, 4]
        return torch.cat(list(self.boxes_per_level)) if len(self.boxes_per_level) != 1 else self.boxes_per_level[0]


@dataclass(frozen=True)
class Matches:
    """Which ground truth each candidate stands for.

    Args:
        gt_index: [N] int64, the ground truth of each candidate (0 where there is none).
        labels: [N] int64 in {-1 discard, 0 negative, 1 positive}.
        quality: [N] float32, the IoU (or the matcher's own measure) with that ground truth.
    """

    gt_index: Tensor
    labels: Tensor
    quality: Tensor

    @property
    def matched_idxs(self) -> Tensor:
        """[N]: index of the ground truth where positive, -1 where between the thresholds, -2 where below the low one."""
        below = torch.where(self.labels == DISCARD_LABEL, -1, -2)
        return torch.where(self.labels == POSITIVE_LABEL, self.gt_index, below)


@dataclass(frozen=True)
class DrawKey:
    """What every random draw depends on: in training the seed, the iteration and the image's place in the global batch.

    Args:
        seed: of the run.
        iteration: of the training.
        first_image: the place of this process's first image in the global batch.
        images: B numbers that stand for the images instead of their places. Test batches have the images' ids here, so
            that what is drawn for an image depends neither on the size of its batch nor on the number of processes.
    """

    seed: int = 0
    iteration: int = 0
    first_image: int = 0
    images: tuple[int, ...] | None = None

    def generator(self, image: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator of its own for one image and purpose ("rpn", "roi_heads.0", ...).

        Args:
            image: the image's index in this process's batch.
            purpose: which draw it is, so that two samplers of one step do not share numbers.
        """
        generator = torch.Generator(device=device)
        generator.manual_seed(self.number(image, purpose))
        return generator

    def number(self, image: int, purpose: str) -> int:
        """The seed behind `generator`: 63 bits that differ for every image, step and purpose."""
        place = self.first_image + image if self.images is None else self.images[image]
        text = f"{self.seed}/{self.iteration}/{place}/{purpose}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

    def part(self, start: int, stop: int) -> DrawKey:
        """The key of the images start..stop - 1 of the batch, who keep their draws."""
        if self.images is not None:
            return replace(self, images=self.images[start:stop])
        return replace(self, first_image=self.first_image + start)


@dataclass(frozen=True)
class Batch:
    """A batch of images and what is known of them.

    Args:
        images: B x [3, h, w], uint8 or float, 0..255, RGB, unpadded, as the loader gives them; the detector replaces them
            by one normalised, padded tensor [B, 3, H, W] before it hands the batch on.
        image_sizes: B x (h, w), before padding.
        original_sizes: B x (h, w) of the files; detections are scaled back to these.
        image_ids: B ids as in the data set.
        targets: B Targets, or None when predicting.
        proposals: B x [P, 4] precomputed proposals, or None.
        draw: the key of the random draws.
    """

    images: Sequence[Tensor] | Tensor
    image_sizes: Sequence[tuple[int, int]]
    original_sizes: Sequence[tuple[int, int]]
    image_ids: Sequence[int]
    targets: Sequence[Targets] | None = None
    proposals: Sequence[Tensor] | None = None
    draw: DrawKey = field(default_factory=DrawKey)

    def __len__(self) -> int:
        return len(self.image_sizes)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of the padded batch; only after the detector has stacked the images."""
        if not isinstance(self.images, Tensor):
            raise TypeError("images are still a list: padded_size is known once the detector has stacked them")
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            images=move(self.images) if isinstance(self.images, Tensor) else [move(image) for image in self.images],
            targets=None if self.targets is None else [t.to(device, non_blocking) for t in self.targets],
            proposals=None if self.proposals is None else [move(p) for p in self.proposals],
        )

    def split(self, parts: int) -> list[Batch]:
        """Cuts the batch into parts of equal size.

        Args:
            parts: how many.

        Raises:
            ValueError: the batch cannot be divided.
        """
        if parts == 1:
            return [self]
        size, rest = divmod(len(self), parts)
        if rest or size == 0:
            raise ValueError(f"a batch of {len(self)} images cannot be split into {parts} equal parts")

        def cut(values: Any, start: int) -> Any:
            return None if values is None else values[start : start + size]

        return [
            replace(
                self,
                images=cut(self.images, start),
                image_sizes=cut(self.image_sizes, start),
                original_sizes=cut(self.original_sizes, start),
                image_ids=cut(self.image_ids, start),
                targets=cut(self.targets, start),
                proposals=cut(self.proposals, start),
                draw=self.draw.part(start, start + size),
            )
            for start in range(0, len(self), size)
        ]


@dataclass(frozen=True)
class Proposals:
    """Regions of one image that may hold an object, best first.

    Args:
        boxes: [P, 4].
        objectness: [P] logits.
        level: [P] int64, which feature level each came from.
        index: [P] int64, which candidate each was (level, y, x, anchor order).
    """

    boxes: Tensor
    objectness: Tensor
    level: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Rois:
    """Regions of one image that were sampled for training the second stage; positives come first.

    Args:
        boxes: [r, 4].
        classes: [r] int64 in 0..K, background is K.
        gt_boxes: [r, 4] of the ground truth each was matched with (zeros in an image without objects).
        gt_index: [r] int64, its index in the targets.
        index: [r] int64, which proposal each was; ground truths appended behind the proposals follow them.
    """

    boxes: Tensor
    classes: Tensor
    gt_boxes: Tensor
    gt_index: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor) -> Rois:
        """Some of the regions.

        Args:
            index: [n] int64 or [r] bool.
        """
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class ScoredBoxes:
    """What the second stage says of every box of one image, before anything is left out.

    Args:
        boxes: [r, K, 4], one box for each class.
        scores: [r, K] in 0..1.
    """

    boxes: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def best_boxes(self) -> Tensor:
        """[r, 4], the box of each row's best class."""
        best = self.scores.argmax(dim=1)  # [r]
        return self.boxes.gather(1, best[:, None, None].expand(-1, 1, self.boxes.shape[2]))[:, 0]


@dataclass(frozen=True)
class EncodedMasks:
    """Masks of objects pasted into their image, as COCO's run lengths: some hundred bytes each, however large the image.

    Args:
        size: (h, w) of the image.
        counts: D run-length strings as COCO compresses them.
    """

    size: tuple[int, int]
    counts: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor) -> EncodedMasks:
        """Some of the masks, for an index [n] int64 or [D] bool."""
        chosen = torch.arange(len(self))[index.cpu()]  # [n]
        return EncodedMasks(self.size, tuple(self.counts[i] for i in chosen.tolist()))

    def to(self, device: torch.device | str) -> EncodedMasks:
        """Itself: run lengths are bytes, which are on no device."""
        return self

    def rle(self, i: int) -> dict[str, Any]:
        """Mask i as COCO's tools take it."""
        return {"size": list(self.size), "counts": self.counts[i]}


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, best first.

    Args:
        boxes: [D, 4].
        scores: [D] in 0..1.
        classes: [D] int64 in 0..K-1.
        index: [D] int64, which proposal each came from.
        masks: [D, M, M] probabilities 0..1 in the frame of each box (M is 28 as a rule), or None. Pasted into the image
            only where that is needed, so that they cost little to move and boxes can be scaled under them.
        keypoints: [D, J, 3] x, y and score, or None.
        encoded_masks: the masks pasted into the original image, or None: what inference over a data set keeps in place of
            `masks`, so that memory and messages between processes stay small.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    index: Tensor
    masks: Tensor | None = None
    keypoints: Tensor | None = None
    encoded_masks: EncodedMasks | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor) -> Detections:
        """Some of the detections.

        Args:
            index: [n] int64 or [D] bool.
        """
        return self._each(lambda column: column[index])

    def to(self, device: torch.device | str) -> Detections:
        return self._each(lambda column: column.to(device))

    def _each(self, change: Callable[[Any], Any]) -> Detections:
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(column) for name, column in columns.items() if column is not None})


@dataclass(frozen=True)
class Output:
    """What a detector returns.

    Args:
        detections: B Detections in the pixels of the original images; None in training mode.
        losses: name -> scalar; keys that start with "loss" are summed, others ("rpn/num_positive") are only logged.
    """

    detections: Sequence[Detections] | None
    losses: dict[str, Tensor]
