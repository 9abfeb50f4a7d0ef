import math
from functools import partial

import pytest
import torch

from frcnn.modeling.box_predictors import CosinePredictor, FastRCNNPredictor, fastrcnn_loss
from frcnn.modeling.losses import (
    BinaryCrossEntropy,
    EqualizationLoss,
    FederatedLoss,
    GIoULoss,
    L1Loss,
    SeesawLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropy,
)
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Rois

K = 3


def make(class_loss=SoftmaxCrossEntropy, box_loss=None, component=FastRCNNPredictor, **options):
    return component(
        8,
        K,
        box_coder=BoxCoder((10, 10, 5, 5)),
        class_loss=class_loss,
        box_loss=box_loss or L1Loss(),
        **options,
    )


def rois(classes, boxes=None, gt_boxes=None):
    n = len(classes)
    square = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    return Rois(
        boxes=square.repeat(n, 1) if boxes is None else boxes,
        classes=torch.tensor(classes, dtype=torch.int64),
        gt_boxes=square.repeat(n, 1) if gt_boxes is None else gt_boxes,
        gt_index=torch.zeros(n, dtype=torch.int64),
        index=torch.arange(n),
    )


def test_widths_and_initialisation():
    torch.manual_seed(0)
    predictor = make()
    assert predictor.cls_score.weight.shape == (K + 1, 8)
    assert predictor.bbox_pred.weight.shape == (4 * K, 8)
    assert 0.005 < predictor.cls_score.weight.std() < 0.02
    assert 0.0005 < predictor.bbox_pred.weight.std() < 0.002
    assert make(class_agnostic=True).bbox_pred.weight.shape == (4, 8)
    assert make(class_loss=BinaryCrossEntropy).cls_score.weight.shape == (K, 8)
    assert make(init="pytorch").cls_score.bias.abs().max() > 0


def test_losses_by_hand():
    # Two images, four ROIs: one of class 1, three background. Logits are 0, so every ROI costs log 4.
    # The ground truth lies one pixel to the right of a box 10 px wide: dx = 10 * 0.1 = 1, and the others are 0.
    moved = torch.tensor([[1.0, 0.0, 11.0, 10.0]])
    sampled = [rois([1, K], gt_boxes=moved.repeat(2, 1)), rois([K, K])]
    deltas = torch.zeros(4, 4 * K)
    deltas[0, 4:8] = torch.tensor([0.5, 0.0, 0.0, 0.25])  # of class 1: |0.5 - 1| + 0.25 = 0.75
    deltas[0, 0:4] = 100.0  # other classes, and background ROIs, have no say
    deltas[1:] = 100.0
    losses = make().losses(torch.zeros(4, K + 1), deltas, sampled)
    assert losses["loss_classifier"].item() == pytest.approx(math.log(4))
    assert losses["loss_box_reg"].item() == pytest.approx(0.75 / 4)


def test_loss_weights_are_applied_once():
    predictor = make(class_loss=partial(SoftmaxCrossEntropy, loss_weight=2.0), box_loss=GIoULoss(loss_weight=10.0))
    deltas = torch.zeros(1, 4 * K)
    half = torch.tensor([[0.0, 0.0, 10.0, 5.0]])  # IoU 0.5, and nothing between the two boxes: GIoU 0.5
    losses = predictor.losses(torch.zeros(1, K + 1), deltas, [rois([0], gt_boxes=half)])
    assert losses["loss_classifier"].item() == pytest.approx(2 * math.log(4))
    assert losses["loss_box_reg"].item() == pytest.approx(10 * 0.5)
    hardness = predictor.hardness(torch.zeros(1, K + 1), deltas, rois([0], gt_boxes=half))
    assert hardness.tolist() == pytest.approx([2 * math.log(4) + 5.0])


def test_hardness_adds_up_to_the_losses():
    generator = torch.Generator().manual_seed(0)
    class_logits, deltas = torch.randn(6, K + 1, generator=generator), torch.randn(6, 4 * K, generator=generator)
    sampled = rois([0, 2, K, 1, K, K])
    predictor = make()
    losses = predictor.losses(class_logits, deltas, [sampled])
    hardness = predictor.hardness(class_logits.requires_grad_(), deltas, sampled)
    assert not hardness.requires_grad
    assert hardness.mean().item() == pytest.approx(sum(losses.values()).item(), rel=1e-5)


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("classes", [[], [K, K]])
def test_without_positives_or_without_rois_losses_have_a_gradient(classes, class_agnostic):
    predictor = make(class_agnostic=class_agnostic)
    losses = predictor.losses(*predictor(torch.zeros(len(classes), 8)), [rois(classes), rois([])])
    assert losses["loss_box_reg"].item() == 0
    assert losses["loss_classifier"].item() == pytest.approx(math.log(4) if classes else 0)
    sum(losses.values()).backward()
    assert predictor.bbox_pred.weight.grad.abs().sum() == 0


def test_decode_by_hand():
    # Class 2 moves the box 10 px to the right: dx = 10 weights * 10 px / 10 px wide.
    class_logits = torch.tensor([[0.0, 0.0, math.log(2), 0.0]])  # softmax 1 1 2 1 over 5
    deltas = torch.zeros(1, 4 * K)
    deltas[0, 8] = 10.0
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    scored = make().decode(class_logits, deltas, box)
    torch.testing.assert_close(scored.scores, torch.tensor([[0.2, 0.2, 0.4]]))
    torch.testing.assert_close(scored.boxes[0, 2], torch.tensor([10.0, 0.0, 20.0, 10.0]))
    torch.testing.assert_close(scored.boxes[0, :2], box.expand(2, 4))
    predictions = make().predictions(class_logits, deltas, box)
    torch.testing.assert_close(predictions.boxes, torch.tensor([[10.0, 0.0, 20.0, 10.0]]))


def test_one_box_for_all_classes():
    scored = make(class_agnostic=True).decode(torch.zeros(2, K + 1), torch.zeros(2, 4), torch.ones(2, 4))
    assert scored.boxes.shape == (2, K, 4)
    assert make(class_agnostic=True).decode(
        torch.zeros(0, K + 1), torch.zeros(0, 4), torch.ones(0, 4)
    ).scores.shape == (
        0,
        K,
    )


def test_output_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        class_logits, deltas = make()(torch.zeros(2, 8))
    assert class_logits.dtype == deltas.dtype == torch.float32


def test_the_free_function_divides_by_what_it_is_given():
    losses = fastrcnn_loss(
        torch.zeros(2, K + 1),
        torch.zeros(2, 4),
        [rois([K, K])],
        torch.tensor(10.0),
        num_classes=K,
        box_coder=BoxCoder(),
        class_loss=SoftmaxCrossEntropy(K),
        box_loss=L1Loss(),
    )
    assert losses["loss_classifier"].item() == pytest.approx(2 * math.log(4) / 10)


LONG_TAIL = [
    SigmoidFocalLoss,
    SeesawLoss,
    FederatedLoss,
    partial(EqualizationLoss, class_counts=(1, 1000, 1000)),
]


@pytest.mark.parametrize("component", [FastRCNNPredictor, CosinePredictor])
@pytest.mark.parametrize("class_loss", LONG_TAIL)
def test_losses_of_long_tails_train_any_predictor(class_loss, component):
    predictor = make(class_loss, component=component)
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    sampled = rois([0, 2, K, K])
    for given in (sampled, rois([K] * 4)):
        losses = predictor.losses(*predictor(features), [given])
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert predictor.cls_score.weight.grad.isfinite().all()
    scored = predictor.decode(*predictor(features), sampled.boxes)
    assert scored.scores.shape == (4, K)
    assert ((scored.scores >= 0) & (scored.scores <= 1)).all()
    losses = predictor.losses(*predictor(features[:0]), [rois([])])
    assert losses["loss_classifier"] == losses["loss_box_reg"] == 0


def test_the_prior_is_what_classes_score_before_training():
    predictor = make(BinaryCrossEntropy, prior_probability=0.01)
    nn_zero = torch.zeros(2, 8)
    torch.testing.assert_close(predictor.class_loss.scores(predictor(nn_zero)[0]), torch.full((2, K), 0.01))
    softmax = make(prior_probability=0.01)
    scores = softmax.class_loss.scores(softmax(nn_zero)[0])
    torch.testing.assert_close(scores, torch.full((2, K), 0.01 / 0.99 / (1 + K * 0.01 / 0.99)))
    with pytest.raises(ValueError, match="prior_probability must be between 0 and 1, got 0"):
        make(prior_probability=0.0)


def test_cosine_by_hand():
    predictor = make(component=CosinePredictor, temperature=10.0)
    with torch.no_grad():
        predictor.cls_score.weight.zero_()
        predictor.cls_score.weight[0, 0] = 5.0  # along the first axis
        predictor.cls_score.weight[1, :2] = torch.tensor([0.3, 0.4])  # 3, 4 and 5
        predictor.cls_score.bias[2] = 1.5
    features = torch.zeros(2, 8)
    features[0, 0] = 100.0
    class_logits, deltas = predictor(features)
    torch.testing.assert_close(class_logits, torch.tensor([[10.0, 6.0, 1.5, 0.0], [0.0, 0.0, 1.5, 0.0]]))
    assert deltas.shape == (2, 4 * K)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(predictor(features)[0], class_logits)
    assert make(component=CosinePredictor, class_agnostic=True).bbox_pred.out_features == 4
    with pytest.raises(ValueError, match="temperature must be above 0, got -1"):
        make(component=CosinePredictor, temperature=-1)


def test_cosine_starts_as_the_linear_predictor_and_does_not_feel_the_length_of_features():
    torch.manual_seed(0)
    linear = make()
    torch.manual_seed(0)
    cosine = make(component=CosinePredictor)
    assert torch.equal(linear.cls_score.weight, cosine.cls_score.weight)
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosine(features)[0], cosine(features * 7)[0])
    assert cosine(features)[0].abs().max() <= 20
