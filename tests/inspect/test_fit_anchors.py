"""Anchors fitted to objects whose best anchors are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.inspect.fit_anchors import anchor_recall, fit_distinct_shapes, fit_shapes, shape_iou
from frcnn.modeling.anchors import GridAnchorGenerator


def test_iou_of_shapes_with_one_centre():
    shapes = np.array([[10.0, 10.0], [20.0, 10.0]])
    # 10x10 and 20x10 share 100 of 200; 20x10 and 10x20 share 100 of 300
    assert shape_iou(shapes, np.array([[20.0, 10.0], [10.0, 20.0]])).tolist() == [[0.5, 0.5], [1.0, 1 / 3]]


def test_two_sizes_and_two_ratios_are_found_exactly():
    shapes = np.array([[16.0, 16], [8, 32], [64, 64], [32, 128]] * 5)
    fit = fit_shapes(shapes, num_sizes=2, num_ratios=2)
    assert fit.sizes == pytest.approx((16, 64))
    assert fit.aspect_ratios == pytest.approx((1, 4))
    assert fit.mean_iou == pytest.approx(1)


def test_the_centre_of_a_cluster_is_its_geometric_mean():
    fit = fit_shapes(np.array([[8.0, 8], [32, 32]]), num_sizes=1, num_ratios=1)
    assert fit.sizes == pytest.approx((16,))
    assert fit.mean_iou == pytest.approx(0.25)  # 64 / 256 and 256 / 1024


def test_ratios_that_are_nearly_equal_become_one():
    """Heights over widths of 0.98, 1.02 and 4: the first two are a factor of 1.04 apart, and one ratio near 1 does for both."""
    ratios = np.repeat(np.sqrt([0.98, 1 / 0.98, 4.0]), 10)  # [n]
    shapes = 32 * np.stack([1 / ratios, ratios], axis=1)
    assert fit_shapes(shapes, num_sizes=1, num_ratios=3).aspect_ratios == pytest.approx((0.98, 1 / 0.98, 4))
    near_one, four = fit_distinct_shapes(shapes, num_sizes=1, num_ratios=3).aspect_ratios
    assert 0.979 < near_one < 1.021
    assert four == pytest.approx(4)


def test_ratios_a_fourth_apart_stay_two():
    ratios = np.repeat(np.sqrt([1.0, 1.25]), 10)
    shapes = 32 * np.stack([1 / ratios, ratios], axis=1)
    assert fit_distinct_shapes(shapes, num_sizes=1, num_ratios=2).aspect_ratios == pytest.approx((1, 1.25))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(2, 500), st.floats(2, 500)), min_size=6, max_size=40))
def test_a_grid_that_is_a_part_of_a_larger_one_is_never_better(shapes):
    shapes = np.array(shapes)
    fit = fit_shapes(shapes, num_sizes=3, num_ratios=2)
    assert list(fit.sizes) == sorted(fit.sizes)
    assert list(fit.aspect_ratios) == sorted(fit.aspect_ratios)
    assert 0 < fit.mean_iou <= 1 + 1e-9


def test_too_few_objects_are_refused():
    with pytest.raises(ValueError, match="2 objects cannot give 3 sizes and 1 ratios"):
        fit_shapes(np.ones((2, 2)), num_sizes=3, num_ratios=1)


def test_recall_counts_objects_where_they_are():
    """Anchors 16x16 around (0, 0), (16, 0), (0, 16), (16, 16)."""
    generator = GridAnchorGenerator((16,), sizes=((16.0,),), aspect_ratios=(1.0,))
    exact = torch.tensor([[8.0, 8, 24, 24]])
    shifted = torch.tensor([[12.0, 8, 28, 24]])  # 12 of 20 columns in common: IoU 0.6
    recall = anchor_recall(generator, (16,), [exact, shifted, torch.zeros(0, 4)], [(32, 32)] * 3)
    assert recall.mean_iou == pytest.approx(0.8)
    assert recall.at == {0.5: 1.0, 0.6: 1.0, 0.7: 0.5}
