"""Anchors fitted to objects whose best anchors are known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.inspect.anchor_coverage import AnchorGrid, CoverageOf, place
from frcnn.inspect.fit_anchors import LEAST_RATIO, LEAST_SIZE, fit_anchors

IMAGE = (512, 512)


def squares(centres, side):
    """Boxes around centres, x and y alike."""
    return np.array([[c - side / 2, c - side / 2, c + side / 2, c + side / 2] for c in centres])


def test_anchors_that_fit_stay():
    """Squares of 16 and 64 px, each on a place of its level."""
    objects = place([np.concatenate([squares([64, 72, 80], 16), squares([64, 128], 64)])], [IMAGE], (8, 32))
    now = AnchorGrid(((16.0,), (64.0,)), ((1.0,),))
    assert CoverageOf(objects)(now).score == 1
    assert fit_anchors(objects, now, num_ratios=1) == now


def test_shapes_that_are_far_off_are_found():
    """Squares of 16 and 64 px with anchors of 300 and 301."""
    objects = place([np.concatenate([squares([64, 72, 80], 16), squares([64, 128], 64)])], [IMAGE], (8, 32))
    fitted = fit_anchors(objects, AnchorGrid(((300.0,), (301.0,)), ((2.0,),)), num_ratios=1)
    assert [sizes[0] for sizes in fitted.sizes] == pytest.approx([16, 64], rel=0.05)
    assert fitted.aspect_ratios[0] == pytest.approx((1,), rel=0.05)


def test_a_coarse_level_is_not_given_small_anchors():
    """99 squares of 30 px halfway between the places of stride 64, and one of 200 px.

    k-means on shapes would have two sizes near 30. At stride 64 such an anchor has its nearest place 32 px from these
    objects in x and in y, and does not touch one.
    """
    small = squares([32 + 64 * (i % 7) for i in range(99)], 30)
    objects = place([np.concatenate([small, squares([256], 200)])], [IMAGE], (8, 64))
    assert objects.distances[1, 0].tolist() == [32, 32]
    assert objects.best_iou(1, (30.0,), (1.0,))[0] == 0
    fitted = fit_anchors(objects, AnchorGrid(((20.0,), (100.0,)), ((1.0,),)), num_ratios=1)
    assert [sizes[0] for sizes in fitted.sizes] == pytest.approx([30, 200], rel=0.05)


def test_a_level_keeps_its_number_of_sizes_and_ratios():
    """All objects are one square: more sizes and ratios would be equal."""
    objects = place([squares([64] * 20, 50)], [IMAGE], (32,))
    fitted = fit_anchors(objects, AnchorGrid(((32.0, 128.0, 512.0),), ((0.5, 1.0, 2.0),)), num_ratios=3)
    check_order(fitted)
    assert (len(fitted.sizes[0]), len(fitted.aspect_ratios[0])) == (3, 3)
    assert CoverageOf(objects)(fitted).mean_iou > 0.95
    four = fit_anchors(objects, AnchorGrid(((32.0, 128.0, 512.0),), ((0.5, 1.0, 2.0),)), num_ratios=4)
    check_order(four)
    assert four.num_anchors == 12


def check_order(grid):
    for values in grid.sizes:
        assert all(b / a > LEAST_SIZE - 1e-6 for a, b in itertools.pairwise(values))
    for values in grid.aspect_ratios:
        assert all(b / a > LEAST_RATIO - 1e-6 for a, b in itertools.pairwise(values))
    assert all(fine[0] <= coarse[0] and fine[-1] <= coarse[-1] for fine, coarse in itertools.pairwise(grid.sizes))


boxes = st.lists(
    st.tuples(st.floats(0, 200), st.floats(0, 200), st.floats(4, 300), st.floats(4, 300)), min_size=1, max_size=12
)


@settings(max_examples=10, deadline=None)
@given(boxes, st.sampled_from([((16.0,), (64.0,)), ((32.0, 64.0), (32.0, 64.0))]), st.booleans())
def test_the_score_is_never_below_the_present_one(boxes, sizes, one_list):
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes])
    objects = place([corners], [IMAGE], (16, 64))
    now = AnchorGrid(sizes, ((0.5, 1.0),) * (1 if one_list else 2))
    fitted = fit_anchors(objects, now, num_ratios=2)
    check_order(fitted)
    assert list(map(len, fitted.sizes)) == list(map(len, sizes))
    assert len(fitted.aspect_ratios) == len(now.aspect_ratios)
    coverage = CoverageOf(objects)
    assert coverage(fitted).score >= coverage(now).score
