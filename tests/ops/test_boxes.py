import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou as torchvision_iou

from frcnn.ops.boxes import BoxCoder, box_area, box_iou, clip_boxes, iou_chunks, large_mask, paired_iou

coordinate = st.floats(0, 1000, width=32)
side = st.floats(0.5, 500, width=32)


@st.composite
def boxes_strategy(draw, min_size=0, max_size=8):
    rows = draw(st.lists(st.tuples(coordinate, coordinate, side, side), min_size=min_size, max_size=max_size))
    return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=torch.float32).reshape(-1, 4)


def test_encode_by_hand():
    box = torch.tensor([[0.0, 0.0, 10.0, 20.0]])  # centre (5, 10)
    gt = torch.tensor([[2.0, 10.0, 22.0, 20.0]])  # centre (12, 15), twice as wide, half as high
    expected = torch.tensor([[0.7, 0.25, math.log(2), -math.log(2)]])
    torch.testing.assert_close(BoxCoder().encode(box, gt), expected)
    weighted = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)).encode(box, gt)
    torch.testing.assert_close(weighted, expected * torch.tensor([10.0, 10.0, 5.0, 5.0]))


def test_decode_by_hand():
    box = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    deltas = torch.tensor([[0.7, 0.25, math.log(2), -math.log(2)]])
    torch.testing.assert_close(BoxCoder().decode(box, deltas), torch.tensor([[2.0, 10.0, 22.0, 20.0]]))


def test_decode_of_several_classes_is_that_of_each():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 9.0, 6.0]])
    deltas = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    each = torch.stack([coder.decode(boxes, deltas[:, k]) for k in range(3)], dim=1)
    assert torch.equal(coder.decode(boxes, deltas), each)
    assert torch.equal(coder.decode(boxes, deltas.flatten(1)), each.flatten(1))
    assert coder.decode(boxes[:0], deltas[:0]).shape == (0, 3, 4)
    assert coder.decode(boxes[:0], deltas[:0].flatten(1)).shape == (0, 12)


def test_huge_deltas_are_clamped_on_one_side_only():
    box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    decoded = BoxCoder().decode(box, torch.tensor([[0.0, 0.0, 100.0, -100.0]]))
    torch.testing.assert_close(decoded, torch.tensor([[-492.0, 8.0, 508.0, 8.0]]))  # 16 * 1000 / 16 px wide, no height


@given(boxes_strategy(min_size=1, max_size=1), boxes_strategy(min_size=1, max_size=1))
def test_coder_round_trip(boxes, gt_boxes):
    coder = BoxCoder(clamp=10.0)
    decoded = coder.decode(boxes, coder.encode(boxes, gt_boxes))
    torch.testing.assert_close(decoded, gt_boxes, rtol=1e-4, atol=1e-2)


def test_one_pixel_boxes_survive_bfloat16_autocast():
    boxes = torch.tensor([[1000.0, 1000.0, 1001.0, 1001.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        deltas = BoxCoder().encode(boxes, boxes + 0.25)
        decoded = BoxCoder().decode(boxes, torch.zeros(1, 4, dtype=torch.bfloat16))
    assert deltas.isfinite().all()
    assert deltas.dtype == decoded.dtype == torch.float32
    assert torch.equal(decoded, boxes)


@pytest.mark.parametrize("options", [{"weights": (1.0, 1.0, 1.0)}, {"weights": (0.0, 1.0, 1.0, 1.0)}, {"clamp": 0.0}])
def test_bad_coders_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        BoxCoder(**options)


def test_iou_by_hand():
    gt_boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    torch.testing.assert_close(box_iou(gt_boxes, boxes), torch.tensor([[1.0, 1 / 3, 0.0]]))
    assert box_area(boxes).tolist() == [100, 100, 100]


def test_iou_of_boxes_without_area_is_zero_and_so_is_its_gradient():
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]], requires_grad=True)
    iou = paired_iou(point, point.detach())
    iou.sum().backward()
    assert iou.tolist() == [0]
    assert point.grad.isfinite().all()


@given(boxes_strategy(), boxes_strategy())
def test_iou_is_symmetric_bounded_and_torchvisions(a, b):
    iou = box_iou(a, b)
    assert iou.shape == (len(a), len(b))
    assert torch.equal(iou, box_iou(b, a).T)
    assert ((iou >= 0) & (iou <= 1 + 1e-6)).all()
    torch.testing.assert_close(iou, torchvision_iou(a, b))


@given(boxes_strategy(), boxes_strategy())
@settings(deadline=None)
def test_chunks_are_the_rows_of_the_matrix(gt_boxes, boxes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frcnn.ops.boxes.IOU_CHUNK_ELEMENTS", 10)
        chunks = list(iou_chunks(gt_boxes, boxes))
    assert all(chunk.numel() <= max(10, len(boxes)) for _, chunk in chunks)
    rows = torch.cat([torch.zeros(0, len(boxes)), *(chunk for _, chunk in chunks)])
    assert torch.equal(rows, box_iou(gt_boxes, boxes))
    assert [first for first, _ in chunks] == [sum(len(c) for _, c in chunks[:i]) for i in range(len(chunks))]


@given(boxes_strategy(), st.integers(1, 800), st.integers(1, 800))
def test_clipped_boxes_lie_in_the_image(boxes, height, width):
    clipped = clip_boxes(boxes, (height, width))
    x, y = clipped[:, 0::2], clipped[:, 1::2]
    assert ((x >= 0) & (x <= width)).all()
    assert ((y >= 0) & (y <= height)).all()
    assert torch.equal(clip_boxes(clipped, (height, width)), clipped)


def test_clip_by_hand():
    boxes = torch.tensor([[-5.0, 2.0, 7.0, 40.0], [50.0, 50.0, 60.0, 60.0]])
    assert clip_boxes(boxes, (30, 20)).tolist() == [[0, 2, 7, 30], [20, 30, 20, 30]]


def test_large_mask_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 1.0, 5.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, math.nan, 5.0]])
    assert large_mask(boxes).tolist() == [False, True, True, False]
    assert large_mask(boxes, 1.0).tolist() == [False, False, True, False]
    assert large_mask(boxes, 1.0, inclusive=True).tolist() == [False, True, True, False]


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.num_elements = max(self.num_elements, tensor.numel())
        return out


def test_five_thousand_ground_truths_against_all_anchors_need_no_whole_matrix():
    gt_boxes = torch.empty(5_000, 4, device="meta")
    boxes = torch.empty(270_000, 4, device="meta")
    with LargestTensor() as largest:
        rows = sum(len(iou) for _, iou in iou_chunks(gt_boxes, boxes))
    assert rows == 5_000
    assert largest.num_elements <= 2**22  # the whole matrix has 1.35e9
