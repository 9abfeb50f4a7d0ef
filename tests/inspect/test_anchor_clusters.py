"""k-means on IoU, with objects whose clusters are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.inspect.anchor_clusters import cluster_shapes, shape_iou


def test_iou_of_shapes_with_one_centre():
    shapes = np.array([[10.0, 10.0], [20.0, 10.0]])
    # 10x10 and 20x10 share 100 of 200; 20x10 and 10x20 share 100 of 300
    assert shape_iou(shapes, np.array([[20.0, 10.0], [10.0, 20.0]])).tolist() == [[0.5, 0.5], [1.0, 1 / 3]]


def test_two_sizes_and_two_ratios_are_found_exactly():
    shapes = np.array([[16.0, 16], [8, 32], [64, 64], [32, 128]] * 5)
    sizes, ratios = cluster_shapes(shapes, num_sizes=2, num_ratios=2)
    assert sizes == pytest.approx([16, 64])
    assert ratios == pytest.approx([1, 4])


def test_the_centre_of_a_cluster_is_its_geometric_mean():
    sizes, ratios = cluster_shapes(np.array([[8.0, 8], [32, 32]]), num_sizes=1, num_ratios=1)
    assert (sizes, ratios) == (pytest.approx([16]), pytest.approx([1]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(2, 500), st.floats(2, 500)), min_size=1, max_size=40))
def test_sizes_and_ratios_ascend(shapes):
    sizes, ratios = cluster_shapes(np.array(shapes), num_sizes=3, num_ratios=2)
    assert (len(sizes), len(ratios)) == (3, 2)
    assert (np.diff(sizes) >= 0).all()
    assert (np.diff(ratios) >= 0).all()


def test_no_objects_are_refused():
    with pytest.raises(ValueError, match="there are no objects"):
        cluster_shapes(np.ones((0, 2)), num_sizes=3, num_ratios=1)
