from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from frcnn.evaluation.inference import run_inference
from frcnn.structures import Batch, Detections, Output, Targets


class Brightness(nn.Module):
    """Finds one box in each image, whose score is the image's mean / 255; its loss is the mean number of objects."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.linear = nn.Linear(3, 3)
        self.seen: list[tuple[bool, bool, torch.dtype]] = []
        self.draws: dict[int, int] = {}

    def forward(self, batch: Batch) -> Output:
        self.seen.append((self.training, torch.is_grad_enabled(), self.linear(torch.ones(1, 3)).dtype))
        self.draws.update((i, batch.draw.number(place, "rpn")) for place, i in enumerate(batch.image_ids))
        detections = []
        for image in batch.images:
            scores = torch.full((1000,), image.float().mean().item() / 255)
            boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1000, 4)
            detections.append(
                Detections(boxes[:1], scores[:1], torch.zeros(1000, dtype=torch.int64)[:1], torch.arange(1))
            )
        losses: dict[str, Tensor] = {}
        if batch.targets is not None:
            losses["loss_count"] = torch.tensor([float(len(t)) for t in batch.targets]).mean()
        return Output(detections, losses)


def batch_of(image_ids: Sequence[int]) -> Batch:
    """Image i is of brightness i and holds i objects."""
    return Batch(
        images=[torch.full((3, 4, 4), i, dtype=torch.uint8) for i in image_ids],
        image_sizes=[(4, 4)] * len(image_ids),
        original_sizes=[(4, 4)] * len(image_ids),
        image_ids=list(image_ids),
        targets=[Targets(torch.zeros(i, 4), torch.zeros(i, dtype=torch.int64)) for i in image_ids],
    )


def test_every_image_once_with_its_detections():
    result = run_inference(Brightness(), [batch_of([3, 1]), batch_of([2])], "cpu")
    assert sorted(result.detections) == [1, 2, 3]
    for image_id, found in result.detections.items():
        assert found.scores.tolist() == pytest.approx([image_id / 255])
    assert result.losses == {}


def test_detections_own_their_memory():
    """The detector cut one row out of 1,000; what is kept and sent to other processes is that row alone."""
    found = run_inference(Brightness(), [batch_of([3])], "cpu").detections[3]
    assert found.scores.untyped_storage().nbytes() == 4
    assert found.boxes.untyped_storage().nbytes() == 16


def test_losses_are_means_over_images_not_batches():
    """Batches (3, 1) and (8): the mean over images is (3 + 1 + 8) / 3 = 4; the mean of the batch means would be 5."""
    result = run_inference(Brightness(), [batch_of([3, 1]), batch_of([8])], "cpu", with_losses=True)
    assert result.losses == {"loss_count": pytest.approx(4.0)}


def test_draws_depend_on_the_image_and_not_on_its_batch():
    def draws(*batches):
        detector = Brightness()
        run_inference(detector, [batch_of(ids) for ids in batches], "cpu", with_losses=True)
        return detector.draws

    assert draws([3, 1], [2]) == draws([1], [2, 3])
    assert len(set(draws([3, 1], [2]).values())) == 3


def test_modes_are_restored_one_by_one_and_no_gradient_is_kept():
    detector = Brightness().train()
    detector.frozen.eval()
    run_inference(detector, [batch_of([1])], "cpu", amp="bf16")
    assert detector.seen == [(False, False, torch.bfloat16)]
    assert detector.training
    assert detector.part.training
    assert not detector.frozen.training

    def fails():
        yield batch_of([1])
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        run_inference(detector, fails(), "cpu")
    assert detector.training


def test_nothing_to_run():
    result = run_inference(Brightness(), [], "cpu", with_losses=True)
    assert (result.detections, result.losses) == ({}, {})


def test_amp_is_checked():
    with pytest.raises(ValueError, match="amp must be off, bf16 or fp16, got 'half'"):
        run_inference(Brightness(), [], "cpu", amp="half")


def _one_of_two(rank: int, port: int, results: mp.SimpleQueue) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    # the second share is padded with an image of the first, as samplers do
    loader = [[batch_of([1, 2]), batch_of([3])], [batch_of([4]), batch_of([1])]][rank]
    result = run_inference(Brightness(), loader, "cpu", with_losses=True)
    results.put((rank, {i: found.scores.tolist() for i, found in result.detections.items()}, result.losses))
    torch.distributed.destroy_process_group()


def test_of_two_processes_the_main_one_has_every_image_exactly_once_and_both_have_the_losses():
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)  # only to learn a free port
    port = store.port
    del store
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    mp.spawn(_one_of_two, args=(port, results), nprocs=2)
    for _ in range(2):
        rank, scores, losses = results.get()
        assert scores == ({i: pytest.approx([i / 255]) for i in (1, 2, 3, 4)} if rank == 0 else {})
        assert losses == {"loss_count": pytest.approx((1 + 2 + 3 + 4 + 1) / 5)}


class LeftHalf(Brightness):
    """Finds one object in the box 2, 2, 6, 6 of each image, whose mask is the left half of the box."""

    def forward(self, batch: Batch) -> Output:
        mask = torch.zeros(1, 28, 28)
        mask[:, :, :14] = 1
        boxes, keypoints = torch.tensor([[2.0, 2.0, 6.0, 6.0]]), torch.tensor([[[3.0, 4.0, 0.5]]])
        one = torch.zeros(1, dtype=torch.int64)
        found = Detections(boxes, torch.ones(1), one, one, masks=mask, keypoints=keypoints)
        return Output([found] * len(batch), {})


def test_masks_are_pasted_into_the_original_image_and_kept_as_run_lengths():
    """Of the 8 x 10 image the object covers rows 2 to 5 and columns 2 and 3."""
    batch = replace(batch_of([1]), original_sizes=[(8, 10)])
    found = run_inference(LeftHalf(), [batch], "cpu").detections[1]
    assert found.masks is None
    assert len(found.encoded_masks.counts[0]) < 10
    expected = np.zeros((8, 10), np.uint8)
    expected[2:6, 2:4] = 1
    np.testing.assert_array_equal(coco_mask.decode(found.encoded_masks.rle(0)), expected)
    assert found.keypoints.tolist() == [[[3.0, 4.0, 0.5]]]
