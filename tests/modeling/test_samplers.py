import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frcnn.modeling.samplers import (
    AllSampler,
    BalancedPositiveNegativeSampler,
    CombinedSampler,
    InstanceBalancedSampler,
    IoUBalancedSampler,
    OHEMSampler,
)
from frcnn.modeling.samplers.drawing import draw_evenly
from frcnn.structures import DrawKey, Matches

LABELS = [1, 0, -1, 0, 1, 0, 0, 1]
QUOTA_SAMPLERS = [BalancedPositiveNegativeSampler, OHEMSampler, IoUBalancedSampler, InstanceBalancedSampler]


def matches(labels, gt_index=None, quality=None):
    labels = torch.tensor(labels, dtype=torch.int64)
    return Matches(
        gt_index=torch.zeros_like(labels) if gt_index is None else torch.tensor(gt_index, dtype=torch.int64),
        labels=labels,
        quality=torch.zeros(len(labels)) if quality is None else torch.tensor(quality, dtype=torch.float32),
    )


def never():
    raise AssertionError("hardness was computed")


def draw(iteration=0):
    return DrawKey(seed=1, iteration=iteration).generator(0, "test")


def test_balanced_by_hand():
    sampler = BalancedPositiveNegativeSampler(batch_size_per_image=6, positive_fraction=0.5)
    positive, negative = sampler(matches(LABELS), never, draw())
    assert positive.tolist() == [0, 4, 7]
    assert len(negative) == 3
    assert set(negative.tolist()) < {1, 3, 5, 6}


def test_negatives_fill_what_positives_leave_free_but_not_the_reverse():
    few_positives = BalancedPositiveNegativeSampler(batch_size_per_image=4, positive_fraction=0.5)
    positive, negative = few_positives(matches([1, 0, 0, 0, 0]), never, draw())
    assert (len(positive), len(negative)) == (1, 3)
    positive, negative = few_positives(matches([1, 1, 1, 1, 0]), never, draw())
    assert (len(positive), len(negative)) == (2, 1)


def test_the_same_key_draws_the_same_and_the_global_generator_is_left_alone():
    sampler = BalancedPositiveNegativeSampler(batch_size_per_image=10, positive_fraction=0.5)
    many = matches([1, 0] * 100)
    state = torch.get_rng_state()
    first, again, other = (sampler(many, never, draw(i)) for i in (7, 7, 8))
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(other))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_negative_is_drawn_equally_often():
    sampler = BalancedPositiveNegativeSampler(batch_size_per_image=2, positive_fraction=0.0)
    counts = torch.zeros(5)
    for iteration in range(500):
        counts[sampler(matches([0] * 5), never, draw(iteration))[1]] += 1
    assert counts.sum() == 1000
    assert ((counts - 200).abs() < 50).all()  # the standard deviation is 11


def test_ohem_by_hand():
    hardness = torch.tensor([0.1, 0.9, 9.0, 0.2, 0.5, 0.8, 0.7, 0.3])
    sampler = OHEMSampler(batch_size_per_image=4, positive_fraction=0.5)
    positive, negative = sampler(matches(LABELS), lambda: hardness, draw())
    assert positive.tolist() == [4, 7]  # 0.5 and 0.3, not 0.1
    assert negative.tolist() == [1, 5]  # 0.9 and 0.8; the 9.0 is discarded by its label


def test_all_sampler_takes_what_is_not_discarded():
    positive, negative = AllSampler()(matches(LABELS), never, draw())
    assert positive.tolist() == [0, 4, 7]
    assert negative.tolist() == [1, 3, 5, 6]
    assert AllSampler().batch_size_per_image is None


def test_iou_balanced_draws_the_same_number_from_every_bin():
    # The highest IoU is 0.3: bins end at 0.1, 0.2 and 0.3, and hold 90, 6 and 4 negatives.
    quality = [0.05] * 90 + [0.15] * 6 + [0.25] * 3 + [0.3]
    sampler = IoUBalancedSampler(batch_size_per_image=12, positive_fraction=0.5)
    _, negative = sampler(matches([0] * 100, quality=quality), never, draw())
    assert torch.bincount(torch.bucketize(negative, torch.tensor([90, 96]), right=True)).tolist() == [4, 4, 4]


def test_iou_balanced_fills_what_a_bin_lacks_from_all_that_is_left():
    # Bins of 20, 0 and 1: four are asked of each, and the seven that are missing can only come from the first.
    sampler = IoUBalancedSampler(batch_size_per_image=12, positive_fraction=0.5)
    _, negative = sampler(matches([0] * 21, quality=[0.0] * 20 + [0.3]), never, draw())
    assert len(negative) == 12
    assert negative[-1] == 20
    one_bin = IoUBalancedSampler(batch_size_per_image=3, positive_fraction=0.0, num_bins=1)
    assert len(one_bin(matches([0] * 5), never, draw())[1]) == 3  # none overlaps anything


def test_instance_balanced_draws_equally_over_the_ground_truths():
    # Ground truths with 50, 8 and 2 positives: the last gives all it has, the others share the rest.
    gt_index = [0] * 50 + [1] * 8 + [2] * 2
    sampler = InstanceBalancedSampler(batch_size_per_image=24, positive_fraction=0.5)
    positive, negative = sampler(matches([1] * 60 + [0] * 30, gt_index + [0] * 30), never, draw())
    assert torch.bincount(torch.tensor(gt_index)[positive]).tolist() == [5, 5, 2]
    assert len(negative) == 12
    # One positive for three ground truths: each has its turn.
    few = InstanceBalancedSampler(batch_size_per_image=1, positive_fraction=1.0)
    first = {few(matches([1, 1, 1], [0, 1, 2]), never, draw(i))[0].item() for i in range(30)}
    assert first == {0, 1, 2}


def test_combined_takes_positives_of_one_and_negatives_of_the_other():
    hardness = torch.tensor([0.1, 0.9, 9.0, 0.2, 0.5, 0.8, 0.7, 0.3])
    quota = {"batch_size_per_image": 4, "positive_fraction": 0.5}
    sampler = CombinedSampler(positive=InstanceBalancedSampler(**quota), negative=OHEMSampler(**quota))
    labels = matches(LABELS, gt_index=[0, 0, 0, 0, 0, 0, 0, 1])
    positive, negative = sampler(labels, lambda: hardness, draw())
    assert len(positive) == 2
    assert positive[1] == 7  # the only one of the second ground truth
    assert negative.tolist() == [1, 5]
    assert sampler.batch_size_per_image == 4
    assert CombinedSampler(positive=AllSampler(), negative=AllSampler()).batch_size_per_image is None


def test_combined_never_takes_more_than_the_batch():
    positive = BalancedPositiveNegativeSampler(batch_size_per_image=8, positive_fraction=1.0)
    negative = BalancedPositiveNegativeSampler(batch_size_per_image=8, positive_fraction=0.25)
    chosen = CombinedSampler(positive=positive, negative=negative)(matches([1] * 6 + [0] * 20), never, draw())
    assert [len(index) for index in chosen] == [6, 2]
    with pytest.raises(ValueError, match="the same batch_size_per_image, got 8 and None"):
        CombinedSampler(positive=positive, negative=AllSampler())


@given(
    st.sampled_from(QUOTA_SAMPLERS),
    st.lists(st.sampled_from([-1, 0, 1]), max_size=60),
    st.integers(1, 40),
    st.floats(0, 1),
)
def test_counts_labels_and_quota(component, labels, batch_size, fraction):
    sampler = component(batch_size_per_image=batch_size, positive_fraction=fraction)
    hardness = torch.arange(len(labels)).float()
    spread = matches(labels, [i % 3 for i in range(len(labels))], [i % 7 / 20 for i in range(len(labels))])
    positive, negative = sampler(spread, lambda: hardness, draw())
    assert [labels[i] for i in positive.tolist()] == [1] * len(positive)
    assert [labels[i] for i in negative.tolist()] == [0] * len(negative)
    assert len(positive) == min(labels.count(1), int(batch_size * fraction))
    assert len(negative) == min(labels.count(0), batch_size - len(positive))
    for index in (positive.tolist(), negative.tolist()):
        assert index == sorted(set(index))


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 40), st.integers(0, 1000))
def test_an_even_draw_leaves_no_group_two_behind_unless_it_is_used_up(groups, count, seed):
    group = torch.tensor(groups, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    chosen = draw_evenly(torch.arange(len(groups)), group, min(count, len(groups)), generator)
    assert len(chosen) == min(count, len(groups))
    taken = torch.bincount(group[chosen], minlength=5)
    left = torch.bincount(group, minlength=5) - taken
    assert all(taken[i] >= taken.max() - 1 for i in range(5) if left[i] > 0)


@pytest.mark.parametrize("component", QUOTA_SAMPLERS)
def test_options_are_checked(component):
    with pytest.raises(ValueError, match=r"positive_fraction must be in \[0, 1\], got 25"):
        component(batch_size_per_image=256, positive_fraction=25)
    with pytest.raises(ValueError, match="batch_size_per_image must be at least 1, got 0"):
        component(batch_size_per_image=0, positive_fraction=0.5)


def test_the_number_of_bins_is_checked():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        IoUBalancedSampler(batch_size_per_image=1, positive_fraction=0.5, num_bins=0)
