import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops

from frcnn.modeling.losses import (
    BalancedL1Loss,
    BinaryCrossEntropy,
    CIoULoss,
    DIoULoss,
    EqualizationLoss,
    FederatedLoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    SeesawLoss,
    SigmoidFocalLoss,
    SmoothL1Loss,
    SoftmaxCrossEntropy,
)
from frcnn.ops.boxes import BoxCoder
from frcnn.ops.losses import balanced_l1

BOX = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
SHIFTED = torch.tensor([[5.0, 0.0, 15.0, 10.0]])  # its deltas relative to BOX are 0.5, 0, 0, 0
APART = torch.tensor([[20.0, 0.0, 30.0, 10.0]])
STAY = torch.zeros(1, 4)

HALF = torch.tensor([[0.0, 0.0, 10.0, 5.0]])

BOX_LOSSES = [L1Loss(), SmoothL1Loss(beta=1 / 9), BalancedL1Loss(), IoULoss(), GIoULoss(), DIoULoss(), CIoULoss()]
CLASS_LOSSES = [
    SoftmaxCrossEntropy,
    partial(SoftmaxCrossEntropy, class_weights=(1.0, 2.0, 3.0, 0.5), label_smoothing=0.1),
    BinaryCrossEntropy,
    SigmoidFocalLoss,
    SeesawLoss,
    FederatedLoss,
    partial(EqualizationLoss, class_counts=(5, 500, 50)),
]
# arctan of the aspect ratios 2 and 1, as CIoU compares them
V = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2


@pytest.mark.parametrize(
    ("loss", "gt_boxes", "expected"),
    [
        (L1Loss(), SHIFTED, 0.5),
        (SmoothL1Loss(beta=0.0), SHIFTED, 0.5),
        (SmoothL1Loss(beta=1.0), SHIFTED, 0.125),  # 0.5 ** 2 / 2
        (SmoothL1Loss(beta=0.25), SHIFTED, 0.375),  # 0.5 - 0.25 / 2
        (IoULoss(), SHIFTED, 2 / 3),  # they share 50 of 150
        (IoULoss(), APART, 1.0),
        (GIoULoss(), SHIFTED, 2 / 3),  # the smallest box around both is their union
        (GIoULoss(), APART, 4 / 3),  # 300 around both, of which 100 belong to neither
        (DIoULoss(), SHIFTED, 2 / 3 + 25 / 325),  # centres 5 apart, diagonal of 15 x 10
        (CIoULoss(), SHIFTED, 2 / 3 + 25 / 325),  # and the same aspect ratio
        (CIoULoss(), HALF, 0.5 + 6.25 / 200 + V * V / (0.5 + V)),  # centres 2.5 apart, diagonal of 10 x 10
        (DIoULoss(), APART, 1 + 400 / 1000),  # centres 20 apart, diagonal of 30 x 10
    ],
)
def test_box_losses_by_hand(loss, gt_boxes, expected):
    torch.testing.assert_close(loss(BoxCoder(), BOX, STAY, gt_boxes), torch.tensor([expected]))


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_a_perfect_box_costs_nothing_and_weights_are_left_to_the_parent(loss):
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    perfect = loss(coder, BOX, coder.encode(BOX, SHIFTED), SHIFTED)
    torch.testing.assert_close(perfect, torch.zeros(1), rtol=0, atol=1e-5)
    assert loss.loss_weight == 1
    heavy = type(loss)(loss_weight=3.0, **({"beta": 1 / 9} if isinstance(loss, SmoothL1Loss) else {}))
    assert heavy.loss_weight == 3
    assert torch.equal(heavy(coder, BOX, STAY, APART), loss(coder, BOX, STAY, APART))


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_no_positive_gives_zero_with_a_gradient(loss):
    deltas = torch.zeros(0, 4, requires_grad=True)
    total = loss(BoxCoder(), BOX[:0], deltas, BOX[:0]).sum()
    total.backward()
    assert total == 0
    assert deltas.grad.shape == (0, 4)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_a_one_pixel_box_has_a_finite_float32_loss_in_bfloat16(loss):
    boxes = torch.tensor([[1001.0, 1001.0, 1002.0, 1002.0]])
    deltas = torch.zeros(1, 4, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(BoxCoder(), boxes, deltas, boxes + 0.5)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert deltas.grad.isfinite().all()


# By the published form with alpha 0.5, gamma 1.5, beta 1: b = e^3 - 1.
@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (0.0, 0.0),
        (0.5, 0.5 / math.expm1(3) * (math.expm1(3) / 2 + 1) * math.log(math.expm1(3) / 2 + 1) - 0.25),
        (1.0, 1.5 + 1.5 / math.expm1(3) - 0.5),
        (-3.0, 4.5 + 1.5 / math.expm1(3) - 0.5),
    ],
)
def test_balanced_l1_by_hand(difference, expected):
    coder = BoxCoder(weights=(10.0, 10.0, 10.0, 10.0))
    deltas = coder.encode(BOX, SHIFTED) + torch.tensor([[difference, 0.0, 0.0, 0.0]])
    value = BalancedL1Loss()(coder, BOX, deltas, SHIFTED)
    torch.testing.assert_close(value, torch.tensor([expected]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_the_gradient_of_balanced_l1_by_hand(beta):
    x = torch.tensor([[0.25], [beta], [4.0]], requires_grad=True)
    balanced_l1(x, torch.zeros(3, 1), 0.5, 1.5, beta).sum().backward()
    small = 0.5 * math.log(math.expm1(3) * 0.25 / beta + 1)
    torch.testing.assert_close(x.grad, torch.tensor([[small], [1.5], [1.5]]))


# Whole pixels: boxes that touch, nest and miss one another.
side = st.tuples(st.integers(0, 20), st.integers(1, 20)).map(lambda t: (t[0], t[0] + t[1]))
box = st.tuples(side, side).map(lambda t: (t[0][0], t[1][0], t[0][1], t[1][1]))


@given(box, box)
@settings(deadline=None)
def test_overlap_losses_are_torchvisions(first, second):
    boxes, gt_boxes = torch.tensor([first]).float(), torch.tensor([second]).float()
    expected = {
        IoULoss: 1 - ops.box_iou(boxes, gt_boxes)[0],
        GIoULoss: 1 - ops.generalized_box_iou(boxes, gt_boxes)[0],
        DIoULoss: 1 - ops.distance_box_iou(boxes, gt_boxes)[0],
        CIoULoss: 1 - ops.complete_box_iou(boxes, gt_boxes)[0],
    }
    for component, value in expected.items():
        torch.testing.assert_close(component()(BoxCoder(), boxes, STAY, gt_boxes), value, rtol=1e-4, atol=1e-4)


def test_softmax_by_hand():
    loss = SoftmaxCrossEntropy(2)
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    assert loss.num_logits == 3
    torch.testing.assert_close(loss(logits, torch.tensor([2, 0])), torch.tensor([math.log(3), math.log(2)]))
    torch.testing.assert_close(loss.scores(logits), torch.tensor([[1 / 3, 1 / 3], [0.5, 0.25]]))


def test_softmax_with_class_weights_by_hand():
    loss = SoftmaxCrossEntropy(2, class_weights=(3.0, 1.0, 0.5))
    values = loss(torch.zeros(2, 3), torch.tensor([0, 2]))
    torch.testing.assert_close(values, torch.tensor([3 * math.log(3), 0.5 * math.log(3)]))


def test_label_smoothing_by_hand():
    # Probabilities 1/2, 1/4, 1/4; a share of 0.3 is spread over three, so the targets are 0.8, 0.1, 0.1.
    loss = SoftmaxCrossEntropy(2, label_smoothing=0.3)
    value = loss(torch.tensor([[math.log(2), 0.0, 0.0]]), torch.tensor([0]))
    torch.testing.assert_close(value, torch.tensor([0.8 * math.log(2) + 0.2 * math.log(4)]))


def test_binary_by_hand():
    loss = BinaryCrossEntropy(2)
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])  # probabilities 1/2 1/2 and 3/4 1/2
    assert loss.num_logits == 2
    background, first = loss(logits, torch.tensor([2, 0])).tolist()
    assert background == pytest.approx(2 * math.log(2))
    assert first == pytest.approx(math.log(4 / 3) + math.log(2))
    torch.testing.assert_close(loss.scores(logits), torch.tensor([[0.5, 0.5], [0.75, 0.5]]))


def test_one_class_is_objectness():
    loss = BinaryCrossEntropy(1)
    logits = torch.tensor([[math.log(3)], [math.log(3)]])
    torch.testing.assert_close(loss(logits, torch.tensor([0, 1])), torch.tensor([math.log(4 / 3), math.log(4)]))


def test_focal_by_hand():
    logits = torch.tensor([[math.log(3)]])
    focal = SigmoidFocalLoss(1, alpha=0.25, gamma=2.0)
    torch.testing.assert_close(focal(logits, torch.tensor([0])), torch.tensor([0.25 * 0.25**2 * math.log(4 / 3)]))
    torch.testing.assert_close(focal(logits, torch.tensor([1])), torch.tensor([0.75 * 0.75**2 * math.log(4)]))


@pytest.mark.parametrize("component", CLASS_LOSSES)
def test_class_losses_are_float32_and_take_nothing(component):
    loss = component(3)
    empty = torch.zeros(0, loss.num_logits, requires_grad=True)
    total = loss(empty, torch.zeros(0, dtype=torch.int64)).sum()
    total.backward()
    assert total == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = torch.zeros(2, loss.num_logits, dtype=torch.bfloat16)
        assert loss(logits, torch.tensor([0, 3])).dtype == loss.scores(logits).dtype == torch.float32
    assert loss.scores(logits).shape == (2, 3)


def test_options_are_checked():
    with pytest.raises(ValueError, match="beta must be at least 0, got -1"):
        SmoothL1Loss(beta=-1)
    with pytest.raises(ValueError, match="loss_weight must be at least 0, got -1"):
        L1Loss(loss_weight=-1)
    with pytest.raises(ValueError, match="gamma must be at least 0, got -2"):
        SigmoidFocalLoss(1, gamma=-2)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 2"):
        SigmoidFocalLoss(1, alpha=2)
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1"):
        SoftmaxCrossEntropy(2, label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"class_weights must be 3 numbers, one a class and background last, got 2"):
        SoftmaxCrossEntropy(2, class_weights=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"alpha, gamma and beta must be above 0, got 0, 1.5 and 1.0"):
        BalancedL1Loss(alpha=0)
