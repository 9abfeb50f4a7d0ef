"""Rotated boxes by hand: overlaps, coding, scaling."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.config import import_file
from frcnn.ops.boxes import box_iou

ops = import_file(Path(__file__).parents[1] / "rotated_boxes.py")

a_box = st.tuples(
    st.floats(-50, 50), st.floats(-50, 50), st.floats(1, 60), st.floats(1, 60), st.floats(-180, 179.9)
).map(list)


def iou(*boxes):
    first, second = torch.tensor(boxes, dtype=torch.float32)
    return ops.rotated_iou(first[None], second[None]).item()


def test_at_90_degrees_the_width_points_up():
    corners = ops.rotated_corners(torch.tensor([10.0, 20.0, 6.0, 2.0, 90.0]))
    assert sorted(corners.round().tolist()) == [[9.0, 17.0], [9.0, 23.0], [11.0, 17.0], [11.0, 23.0]]


def test_counter_clockwise_is_as_one_looks_at_the_picture():
    # A thin box at 45 degrees reaches from the lower left to the upper right, where y is small.
    tip = ops.rotated_corners(torch.tensor([0.0, 0.0, 10.0, 0.0, 45.0]))[0]
    assert tip.tolist() == pytest.approx([math.sqrt(12.5), -math.sqrt(12.5)])


def test_a_square_and_the_same_square_turned_by_45_degrees_share_an_octagon():
    # The octagon of inner radius 1 has the area 8 (sqrt 2 - 1); the squares have 4 each.
    octagon = 8 * (math.sqrt(2) - 1)
    assert iou([0, 0, 2, 2, 0], [0, 0, 2, 2, 45]) == pytest.approx(octagon / (8 - octagon), abs=1e-6)


def test_a_cross_shares_its_middle():
    assert iou([5, 5, 10, 2, 30], [5, 5, 10, 2, 120]) == pytest.approx(4 / (40 - 4), abs=1e-6)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 4, 2, 30], 1.0),
        ([0, 0, 4, 2, -150], 1.0),
        ([0, 0, 2, 4, 120], 1.0),
        ([0, 0, 2, 1, 30], 0.25),
        ([4 * math.cos(math.pi / 6), -2, 4, 2, 30], 0.0),  # touches at the whole side
        ([100, 0, 4, 2, 30], 0.0),
        ([0, 0, 0, 0, 30], 0.0),
    ],
)
def test_the_same_the_inner_the_touching_the_distant_and_the_empty_box(other, expected):
    assert iou([0, 0, 4, 2, 30], other) == pytest.approx(expected, abs=1e-6)


def test_two_empty_boxes_do_not_overlap():
    assert iou([0, 0, 0, 0, 0], [0, 0, 0, 0, 0]) == 0.0


def test_at_angle_0_it_is_the_iou_of_straight_boxes():
    generator = torch.Generator().manual_seed(0)
    straight = torch.rand(30, 2, 2, generator=generator).mul(50).sort(dim=1).values.flatten(1)  # [30, 4]
    low, high = straight[:, :2], straight[:, 2:]
    rotated = torch.cat(((low + high) / 2, high - low, torch.zeros(30, 1)), dim=1)
    torch.testing.assert_close(ops.rotated_iou(rotated, rotated), box_iou(straight, straight), atol=1e-5, rtol=0)


def test_it_is_the_share_of_points_in_both():
    boxes = torch.tensor([[0.0, 0, 30, 10, 20], [4, 3, 25, 14, -50]])
    y, x = torch.meshgrid(torch.arange(-20, 20, 0.05), torch.arange(-20, 20, 0.05), indexing="ij")
    inside = []
    for cx, cy, w, h, angle in boxes.tolist():
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        along_w, along_h = (x - cx) * cos - (y - cy) * sin, (x - cx) * sin + (y - cy) * cos
        inside.append((along_w.abs() < w / 2) & (along_h.abs() < h / 2))
    expected = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
    assert iou(*boxes.tolist()) == pytest.approx(expected.item(), abs=2e-3)


@settings(max_examples=40, deadline=None)
@given(a_box, a_box, st.floats(-180, 180))
def test_overlap_is_symmetric_bounded_and_does_not_change_when_the_plane_turns(first, second, turn):
    value = iou(first, second)
    assert 0 <= value <= 1
    assert iou(second, first) == pytest.approx(value, abs=1e-4)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    turned = [[x * cos + y * sin, y * cos - x * sin, w, h, angle + turn] for x, y, w, h, angle in (first, second)]
    assert iou(*turned) == pytest.approx(value, abs=1e-4)


def test_pairs_are_taken_some_at_a_time(monkeypatch):
    boxes = torch.tensor([[float(x), 0, 8, 3, 10 * x] for x in range(7)])
    whole = ops.rotated_iou(boxes, boxes)
    monkeypatch.setattr(ops, "PAIRS_AT_ONCE", 5)
    monkeypatch.setattr(ops, "IOU_CHUNK_ELEMENTS", 14)
    chunks = list(ops.rotated_iou_chunks(boxes, boxes))
    assert [first for first, _ in chunks] == [0, 2, 4, 6]
    assert torch.equal(torch.cat([chunk for _, chunk in chunks]), whole)


def test_nothing_overlaps_nothing():
    assert ops.rotated_iou(torch.zeros(0, 5), torch.zeros(3, 5)).shape == (0, 3)


@pytest.mark.parametrize(("degrees", "period", "expected"), [(190, 360, -170), (-180, 360, -180), (180, 360, -180)])
def test_angles_are_wrapped(degrees, period, expected):
    assert ops.wrap_angle(torch.tensor(float(degrees)), period).item() == expected
    assert ops.wrap_angle(np.float64(degrees), period) == expected


def test_a_tiny_negative_angle_does_not_reach_the_period():
    assert ops.wrap_angle(torch.tensor(-180.00001)).item() < 180


def test_deltas_by_hand():
    coder = ops.RotatedBoxCoder((1, 1, 1, 1), angle_weight=2)
    deltas = coder.encode(torch.tensor([[10.0, 10, 4, 2, 170]]), torch.tensor([[12.0, 11, 8, 2, -160]]))
    # the shorter turn from 170 to -160 is 30 degrees
    assert deltas[0].tolist() == pytest.approx([0.5, 0.5, math.log(2), 0, 2 * math.pi / 6], abs=1e-5)


def test_with_a_period_of_180_the_other_end_is_as_good():
    coder = ops.RotatedBoxCoder(angle_period=180)
    deltas = coder.encode(torch.tensor([[0.0, 0, 4, 2, -90]]), torch.tensor([[0.0, 0, 4, 2, 85]]))
    assert deltas[0, 4].item() == pytest.approx(math.radians(-5), abs=1e-6)
    assert coder.decode(torch.tensor([[0.0, 0, 4, 2, -90]]), deltas)[0, 4].item() == pytest.approx(-95, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(a_box, a_box, st.sampled_from([180, 360]))
def test_decoding_undoes_encoding(box, gt, period):
    coder = ops.RotatedBoxCoder((10.0, 10.0, 5.0, 5.0), angle_weight=3.0, angle_period=period)
    boxes, gt_boxes = torch.tensor([box]), torch.tensor([gt])
    decoded = coder.decode(boxes, coder.encode(boxes, gt_boxes))
    assert -180 <= decoded[0, 4] < 180
    torch.testing.assert_close(decoded[:, :4], gt_boxes[:, :4], atol=1e-2, rtol=1e-3)
    away = ops.wrap_angle(decoded[:, 4] - gt_boxes[:, 4], period)
    assert min(away.abs().item(), period - away.abs().item()) < 1e-2


def test_one_set_of_deltas_per_class():
    coder, boxes, deltas = ops.RotatedBoxCoder(), torch.rand(3, 5) + 1, torch.rand(3, 2, 5)
    per_class = coder.decode(boxes, deltas)  # [3, 2, 5]
    torch.testing.assert_close(coder.decode(boxes, deltas.flatten(1)).view(3, 2, 5), per_class)
    torch.testing.assert_close(coder.decode(boxes, deltas[:, 1]), per_class[:, 1])


@pytest.mark.parametrize("options", [{"angle_weight": 0.0}, {"angle_period": 90}, {"weights": (1, 1, 1)}])
def test_wrong_options_of_the_coder_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        ops.RotatedBoxCoder(**options)


def test_scaling_one_axis_alone_stretches_the_sides_that_lie_along_it():
    boxes = torch.tensor([[10.0, 10, 4, 2, 0], [10, 10, 4, 2, 90], [10, 10, 4, 2, 30]])
    scaled = ops.scale_rotated(boxes, 3.0, 1.0)
    torch.testing.assert_close(scaled[0], torch.tensor([30.0, 10, 12, 2, 0]))
    torch.testing.assert_close(scaled[1], torch.tensor([30.0, 10, 4, 6, 90]))
    torch.testing.assert_close(ops.scale_rotated(boxes, 2.0, 2.0)[2], torch.tensor([20.0, 20, 8, 4, 30]))


def test_only_boxes_that_are_hardly_turned_are_clipped():
    boxes = torch.tensor([[0.0, 5, 8, 4, 0.5], [0, 5, 8, 4, 45], [-20, 5, 8, 4, 0]])
    clipped = ops.clip_straight(boxes, (10, 10))
    assert clipped[0].tolist() == [2.0, 5.0, 4.0, 4.0, 0.5]
    assert torch.equal(clipped[1], boxes[1])
    assert ops.large_rotated_mask(clipped).tolist() == [True, True, False]
