import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frcnn.benchmark.statistics import Difference, Spread, paired_difference, t_cdf, t_quantile


# printed in every table of the distribution
@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (1000, 1.962)],
)
def test_the_t_quantiles_are_those_of_the_tables(degrees, quantile):
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=6e-4)


@given(st.floats(0, 50), st.integers(1, 60))
def test_the_distribution_function_lies_between_a_half_and_one(t, degrees):
    assert 0.5 - 1e-12 <= t_cdf(t, degrees) <= 1 + 1e-12


def test_mean_and_standard_deviation_by_hand():
    spread = Spread({0: 57.0, 1: 58.0, 2: 60.0})
    assert spread.mean == pytest.approx(175 / 3)
    # deviations -4/3, -1/3, 5/3: squares 16/9 + 1/9 + 25/9 = 42/9, over n - 1 = 2
    assert spread.std == pytest.approx(math.sqrt(42 / 9 / 2))


def test_one_seed_has_a_mean_and_no_spread():
    spread = Spread({0: 57.0})
    assert (spread.mean, spread.std) == (57.0, None)
    assert (Spread({}).mean, Spread({}).std) == (None, None)


def test_the_difference_is_paired_by_seed():
    first, variant = Spread({0: 50.0, 1: 60.0, 2: 70.0}), Spread({0: 51.0, 1: 62.0, 2: 73.0})
    difference = paired_difference(variant, first)
    assert difference.values == {0: 1.0, 1: 2.0, 2: 3.0}
    assert difference.mean == 2.0
    assert difference.standard_error == pytest.approx(1 / math.sqrt(3))  # stdev(1, 2, 3) = 1
    assert difference.half_width == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)  # 2.484
    assert difference.verdict == "within noise"


def test_a_difference_outside_its_interval_is_called_by_its_sign():
    assert Difference({0: 3.0, 1: 3.1, 2: 2.9}).verdict == "better"
    assert Difference({0: -3.0, 1: -3.1, 2: -2.9}).verdict == "worse"


def test_the_first_differs_from_itself_by_nothing():
    spread = Spread({0: 50.0, 1: 60.0})
    difference = paired_difference(spread, spread)
    assert (difference.mean, difference.half_width, difference.verdict) == (0.0, 0.0, "within noise")


def test_seeds_that_one_of_them_lacks_are_left_out():
    difference = paired_difference(Spread({0: 51.0, 2: 73.0}), Spread({0: 50.0, 1: 60.0}))
    assert difference.values == {0: 1.0}
    assert (difference.half_width, difference.verdict) == (None, "n/a")


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 3), (1.0, 3), (0.975, 0)])
def test_quantiles_that_do_not_exist_are_refused(probability, degrees):
    with pytest.raises(ValueError, match="must be in"):
        t_quantile(probability, degrees)
