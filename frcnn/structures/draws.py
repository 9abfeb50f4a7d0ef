"""Where random numbers come from: a generator for each image, step and purpose, and no global one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch


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
