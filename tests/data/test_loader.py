"""Batches: what they hold, that they repeat exactly, and what is said when something breaks."""

import os
import signal
from itertools import islice

import numpy as np
import pytest
import torch

from frcnn import distributed
from frcnn.data import loader as loaders
from frcnn.data.coco import CocoDataset
from frcnn.data.loader import TrainLoader
from frcnn.data.roles import Category, Dataset, Sample, Transform
from frcnn.data.shapes import make_shapes
from frcnn.data.transforms import RandomHorizontalFlip, ResizeShortestEdge
from frcnn.errors import UserError


class Numbered(Dataset):
    """n images whose pixels are their index; every third is higher than wide; image `broken` does what `how` says."""

    def __init__(self, n=10, broken=-1, how=None):
        self.categories = [Category(1, "thing")]
        self.n, self.broken, self.how = n, broken, how

    def __len__(self):
        return self.n

    @property
    def image_sizes(self):
        return np.array([(6, 4) if i % 3 == 0 else (4, 6) for i in range(self.n)])

    def __getitem__(self, index):
        if index == self.broken:
            self.how()
        height, width = self.image_sizes[index].tolist()
        image = np.full((height, width, 3), index, np.uint8)
        image[..., 2] += 100
        boxes = np.array([[0, 0, 1 + index % 3, 2]] * (index % 4), np.float32).reshape(-1, 4)
        return Sample(image, boxes, np.zeros(len(boxes), np.int64), 1000 + index, (height, width))


class AddNoise(Transform):
    def __call__(self, sample, rng, others):
        (other,) = others(1)
        noisy = sample.image + rng.integers(0, 100, sample.image.shape) + other.image_id % 7
        return Sample(noisy.astype(np.uint8), sample.boxes, sample.classes, sample.image_id, sample.original_size)


def complain():
    raise UserError("image 1003 is broken: mend it")


def fail():
    raise KeyError("a mistake in the code")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def train_loader(dataset=None, **options):
    return TrainLoader(
        Numbered() if dataset is None else dataset, [AddNoise()], **{"batch_size": 2, "seed": 3, **options}
    )


def contents(batches):
    return [
        (
            batch.image_ids,
            [image.tolist() for image in batch.images],
            [target.boxes.tolist() for target in batch.targets],
        )
        for batch in batches
    ]


def take(loader, n):
    batches = iter(loader)
    taken = list(islice(batches, n))
    batches.close()
    return taken


def test_a_batch_is_uint8_channels_first_with_targets():
    dataset = Numbered()
    batch = next(iter(TrainLoader(dataset, [], batch_size=3, seed=0)))
    assert len(batch) == 3
    for image, size, original, image_id, target in zip(
        batch.images, batch.image_sizes, batch.original_sizes, batch.image_ids, batch.targets, strict=True
    ):
        sample = dataset[image_id - 1000]
        assert image.dtype == torch.uint8
        assert image.is_contiguous()
        np.testing.assert_array_equal(image.numpy(), sample.image.transpose(2, 0, 1))
        assert (*size, 3) == sample.image.shape
        assert original == sample.original_size
        np.testing.assert_array_equal(target.boxes.numpy(), sample.boxes)
        assert (target.boxes.dtype, target.classes.dtype) == (torch.float32, torch.int64)
    assert len({height > width for height, width in batch.image_sizes}) == 1


def test_without_grouping_shapes_mix():
    batches = take(TrainLoader(Numbered(), [], batch_size=5, seed=0, aspect_ratio_grouping=False), 2)
    assert sorted(i for batch in batches for i in batch.image_ids) == list(range(1000, 1010))
    assert any(len(set(batch.image_sizes)) == 2 for batch in batches)


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 1, "start_method": "spawn"}])
def test_workers_change_nothing(options):
    expected = contents(take(train_loader(), 8))
    assert contents(take(train_loader(**options), 8)) == expected


def test_a_resumed_stream_goes_on_exactly_and_counts_deliveries():
    whole = contents(take(train_loader(), 12))
    loader = train_loader(num_workers=2)
    assert contents(take(loader, 5)) == whole[:5]
    assert loader.position == 5
    assert contents(take(train_loader(start_batch=loader.position), 7)) == whole[5:]
    assert contents(take(loader, 7)) == whole[5:]


def test_the_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = contents(take(train_loader(num_workers=1), 3))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.manual_seed(1)
    assert contents(take(train_loader(num_workers=1), 3)) == expected
    torch.manual_seed(0)
    take(train_loader(num_workers=1), 3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_two_processes_draw_what_one_would(monkeypatch):
    whole = take(train_loader(batch_size=4), 6)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(take(train_loader(batch_size=4), 6))
    for batch, first, second in zip(whole, *shares, strict=True):
        assert [*first.image_ids, *second.image_ids] == list(batch.image_ids)
        for one, other in zip([*first.images, *second.images], batch.images, strict=True):
            assert torch.equal(one, other)
    with pytest.raises(UserError, match=r"batch_size must be a multiple of the number of processes, 2.*got 3"):
        train_loader(batch_size=3)


def test_epoch_length_need_not_be_whole():
    assert train_loader(batch_size=4).epoch_length == 2.5


def test_a_data_set_without_images_is_refused():
    with pytest.raises(UserError, match="the training data set has no images"):
        train_loader(Numbered(0))


def test_testing_takes_every_image_once_over_all_processes(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    ids = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        loader = loaders.test_loader(Numbered(10), [], 2, 0)
        batches = list(loader)
        assert len(batches) == len(loader) == 2
        assert all(batch.targets is None for batch in batches)
        ids += [i for batch in batches for i in batch.image_ids]
    assert sorted(ids) == list(range(1000, 1010))


def test_testing_repeats_and_has_targets_when_asked():
    loader = loaders.test_loader(Numbered(5), [AddNoise()], batch_size=2, num_workers=1, with_targets=True)
    first, second = contents(loader), contents(loader)
    assert first == second
    assert [len(boxes) for _, _, boxes in first] == [2, 2, 1]


def test_a_process_without_images_has_no_batches(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setattr(distributed, "rank", lambda: 3)
    assert list(loaders.test_loader(Numbered(2), [], 2, 1)) == []


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_workers": 2}])
def test_a_users_mistake_comes_out_of_a_worker_as_one_line(options):
    dataset = Numbered(10, broken=3, how=complain)
    with pytest.raises(UserError) as caught:
        take(train_loader(dataset, **options), 50)
    assert str(caught.value) == "image 1003 is broken: mend it"


def test_a_mistake_in_the_code_keeps_its_trace():
    with pytest.raises(KeyError, match="a mistake in the code"):
        take(train_loader(Numbered(10, broken=3, how=fail), num_workers=1), 50)


def test_a_killed_worker_is_explained():
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(UserError, match=r"worker was lost: killed \(signal 9\), most likely because memory ran out"):
        take(train_loader(Numbered(10, broken=3, how=die), num_workers=1), 50)
    assert signal.getsignal(signal.SIGCHLD) == handler


def test_a_batch_without_shared_memory_is_explained(monkeypatch):
    def refuse(self):
        raise RuntimeError("unable to allocate shared memory: No space left on device")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(UserError, match=r"could not get .* MB of shared memory.*enlarge /dev/shm"):
        take(train_loader(num_workers=1, start_method="fork"), 1)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_real_data_set_travels_to_workers_however_they_start(tmp_path, method):
    make_shapes(tmp_path, num_train=4, num_test=0)
    dataset = CocoDataset(annotations=str(tmp_path / "train.json"), images=str(tmp_path / "images"))
    transforms = [ResizeShortestEdge(sizes=[64, 96]), RandomHorizontalFlip()]
    expected = contents(take(TrainLoader(dataset, transforms, batch_size=2, seed=0), 3))
    loader = TrainLoader(dataset, transforms, batch_size=2, seed=0, num_workers=1, start_method=method)
    assert contents(take(loader, 3)) == expected


def test_a_missing_image_is_named_through_the_worker(tmp_path):
    make_shapes(tmp_path, num_train=2, num_test=0)
    os.remove(tmp_path / "images" / "train_000002.jpg")
    dataset = CocoDataset(annotations=str(tmp_path / "train.json"), images=str(tmp_path / "images"))
    with pytest.raises(UserError, match=r"train_000002.jpg \(image id 2\): there is no such image file"):
        take(TrainLoader(dataset, [], batch_size=2, seed=0, num_workers=1), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_batches_are_pinned_for_cuda():
    batch = take(train_loader(num_workers=1, pin_memory=True), 1)[0]
    assert all(image.is_pinned() for image in batch.images)
