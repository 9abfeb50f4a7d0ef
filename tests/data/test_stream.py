"""Which images come in which batch depends on the seed and the number of batches before, and on nothing else."""

import time
from collections import Counter
from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.stream import aspect_ratio_groups, batch_stream, keyed_generator


def take(stream, n):
    return list(islice(stream, n))


def test_wide_and_high_images_are_two_groups():
    assert aspect_ratio_groups(np.array([[480, 640], [640, 480], [500, 500]])).tolist() == [1, 0, 0]


def test_each_epoch_has_every_image_once_in_a_new_order():
    batches = take(batch_stream(np.zeros(6, int), 2, seed=1), 9)
    epochs = [[draw.index for batch in batches[start : start + 3] for draw in batch] for start in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4, 5]] * 3
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [draw.counter for batch in batches for draw in batch] == list(range(18))


def test_batches_are_of_one_group_and_lose_no_image():
    groups = np.array([0, 1, 1, 0, 1, 1, 1])
    batches = take(batch_stream(groups, 4, seed=0), 700)
    assert all(len({groups[draw.index] for draw in batch}) == 1 for batch in batches)
    counts = Counter(draw.index for batch in batches for draw in batch)
    assert set(counts.values()) <= {399, 400, 401}
    counters = sorted(draw.counter for batch in batches for draw in batch)
    assert len(set(counters)) == len(counters)


@given(
    groups=st.lists(st.integers(0, 1), min_size=1, max_size=9),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 2**40),
    start=st.integers(0, 30),
)
@settings(max_examples=60, deadline=None)
def test_a_later_start_goes_on_exactly(groups, batch_size, seed, start):
    whole = take(batch_stream(np.array(groups), batch_size, seed), start + 4)
    assert take(batch_stream(np.array(groups), batch_size, seed, start), 4) == whole[start:]


def test_seeds_differ():
    first, second = (take(batch_stream(np.zeros(50, int), 5, seed), 5) for seed in (0, 1))
    assert first != second


def test_a_long_run_is_resumed_in_seconds():
    groups = (np.random.default_rng(0).random(118_000) < 0.75).astype(int)
    started = time.process_time()
    next(batch_stream(groups, 16, seed=0, start_batch=90_000))
    assert time.process_time() - started < 4


def test_generators_depend_on_seed_purpose_and_counter():
    draws = {
        keyed_generator(*key).random()
        for key in [(0, "order", 1), (0, "augmentation", 1), (0, "order", 2), (1, "order", 1)]
    }
    assert len(draws) == 4
    assert keyed_generator(5, "test", 3).random() == keyed_generator(5, "test", 3).random()
