"""Coverage computed from nearest places, against numbers by hand and against every anchor of the generator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.inspect.anchor_coverage import AnchorGrid, Coverage, CoverageOf, place
from frcnn.modeling.anchors import GridAnchorGenerator
from frcnn.ops.boxes import box_iou


def test_objects_are_covered_where_they_are():
    """Anchors 16x16 around (0, 0), (16, 0), (0, 16), (16, 16)."""
    exact = np.array([[8.0, 8, 24, 24]])
    shifted = np.array([[12.0, 8, 28, 24]])  # 12 of 20 columns in common: IoU 0.6
    objects = place([exact, shifted, np.zeros((0, 4))], [(32, 32)] * 3, (16,))
    assert objects.distances[0].tolist() == [[0, 0], [4, 0]]
    coverage = CoverageOf(objects)(AnchorGrid(((16.0,),), ((1.0,),)))
    assert coverage.mean_iou == pytest.approx(0.8)
    assert coverage.recall == {0.5: 1.0, 0.6: 1.0, 0.7: 0.5}
    assert coverage.score == pytest.approx((0.8 + 1 + 1 + 0.5) / 4)


def test_a_shortfall_is_the_sum_of_what_fell():
    before, after = Coverage(0.7, {0.5: 0.9, 0.7: 0.4}), Coverage(0.6, {0.5: 0.8, 0.7: 0.9})
    assert after.shortfall(before) == pytest.approx(0.2)
    assert before.shortfall(after) == pytest.approx(0.5)
    assert after.shortfall(after) == 0


side = st.floats(2, 90)
corner = st.floats(0, 90)


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(corner, corner, side, side), min_size=1, max_size=5),
    size=st.tuples(st.integers(20, 100), st.integers(20, 100)),
    offset=st.sampled_from([0.0, 0.5]),
    padded=st.booleans(),
    rounded=st.booleans(),
)
def test_the_nearest_places_have_the_best_of_all_anchors(boxes, size, offset, padded, rounded):
    strides, sizes, ratios = (8, 32), ((10.0, 21.0), (44.0, 70.0)), ((0.4, 1.0), (1.0, 2.3))
    generator = GridAnchorGenerator(
        strides,
        sizes=sizes,
        aspect_ratios=ratios,
        offset=offset,
        round_cells=rounded,
        stride="padded_size" if padded else "declared",
    )
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32)
    anchors = torch.cat(generator([(-(-size[0] // s), -(-size[1] // s)) for s in strides], size))
    every = box_iou(torch.from_numpy(corners), anchors).amax(dim=1)
    objects = place([corners], [size], strides, offset=offset, padded_size=padded, round_cells=rounded)
    nearest = np.max([objects.best_iou(level, sizes[level], ratios[level]) for level in range(2)], axis=0)
    assert nearest == pytest.approx(every.numpy(), abs=1e-4)
