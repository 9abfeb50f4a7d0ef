import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frcnn.modeling.samplers import AllSampler, BalancedPositiveNegativeSampler, OHEMSampler
from frcnn.structures import DrawKey, Matches

LABELS = [1, 0, -1, 0, 1, 0, 0, 1]


def matches(labels):
    labels = torch.tensor(labels, dtype=torch.int64)
    return Matches(gt_index=torch.zeros_like(labels), labels=labels, quality=torch.zeros(len(labels)))


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


@given(
    st.sampled_from([BalancedPositiveNegativeSampler, OHEMSampler]),
    st.lists(st.sampled_from([-1, 0, 1]), max_size=60),
    st.integers(1, 40),
    st.floats(0, 1),
)
def test_counts_labels_and_quota(component, labels, batch_size, fraction):
    sampler = component(batch_size_per_image=batch_size, positive_fraction=fraction)
    hardness = torch.arange(len(labels)).float()
    positive, negative = sampler(matches(labels), lambda: hardness, draw())
    assert [labels[i] for i in positive.tolist()] == [1] * len(positive)
    assert [labels[i] for i in negative.tolist()] == [0] * len(negative)
    assert len(positive) == min(labels.count(1), int(batch_size * fraction))
    assert len(negative) == min(labels.count(0), batch_size - len(positive))
    for index in (positive.tolist(), negative.tolist()):
        assert index == sorted(set(index))


@pytest.mark.parametrize("component", [BalancedPositiveNegativeSampler, OHEMSampler])
def test_options_are_checked(component):
    with pytest.raises(ValueError, match=r"positive_fraction must be in \[0, 1\], got 25"):
        component(batch_size_per_image=256, positive_fraction=25)
    with pytest.raises(ValueError, match="batch_size_per_image must be at least 1, got 0"):
        component(batch_size_per_image=0, positive_fraction=0.5)
