import copy
from functools import partial

import pytest
import torch

from frcnn.modeling.box_heads import TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.dynamic import NOTHING_SEEN, DynamicROIHeads, ProposalQuality, mean_top_iou
from frcnn.modeling.losses import DynamicSmoothL1Loss, L1Loss, SmoothL1Loss, SoftmaxCrossEntropy
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.samplers import AllSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, Candidates, FeatureShape, Proposals, Targets

SHAPES = {"p2": FeatureShape(4, 4)}
OBJECT = [0.0, 0.0, 40.0, 40.0]
TENTHS = [[0.0, 0.0, 40.0, 4.0 * part] for part in range(1, 11)]  # IoU 0.1, 0.2, ..., 1.0 with the object


def make(box_loss=None, **options):
    torch.manual_seed(0)
    predictor = partial(
        FastRCNNPredictor,
        box_coder=BoxCoder((10, 10, 5, 5)),
        class_loss=SoftmaxCrossEntropy,
        box_loss=box_loss or DynamicSmoothL1Loss(),
    )
    return DynamicROIHeads(
        SHAPES,
        2,
        in_features=("p2",),
        sampler=AllSampler(),
        pooler=partial(ROIAlign, resolution=3),
        box_head=partial(TwoMLPHead, width=8),
        box_predictor=predictor,
        postprocess=Postprocess(nms=NMS(iou_threshold=0.5)),
        branches={},
        **options,
    )


def found(*boxes_per_image):
    result = []
    for boxes in boxes_per_image:
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        index = torch.arange(len(boxes))
        result.append(Proposals(boxes, torch.zeros(len(boxes)), index, index))
    return result


def targets(*boxes_per_image):
    return [
        Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))
        for boxes in boxes_per_image
    ]


def batch(gts=(OBJECT,)):
    return Batch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 64)], [0], targets(list(gts)))


def step(heads, boxes=TENTHS, gts=(OBJECT,), seed=0):
    maps = {"p2": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))}
    return heads(maps, found(boxes), batch(gts))[1]


def test_the_top_k_of_ten_ious_by_hand():
    # The third best of 0.1 ... 1.0 is 0.8; the second image has two proposals, the worst of them at 0.5; the third nothing.
    proposals = found(TENTHS, [TENTHS[4], TENTHS[9]], TENTHS)
    iou = mean_top_iou(proposals, targets([OBJECT], [OBJECT], []), top_k=3)
    assert iou.item() == pytest.approx((0.8 + 0.5) / 2)
    assert mean_top_iou(found(TENTHS, []), targets([], [OBJECT]), top_k=3) == NOTHING_SEEN


def test_an_update_by_hand():
    loss = DynamicSmoothL1Loss()
    quality = ProposalQuality(initial_iou=0.4, update_every=10)
    ious = [0.40, 0.42, 0.44, 0.46, 0.48, 0.50, 0.52, 0.54, 0.56, 0.58]  # mean 0.49
    errors = [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 2.0, 0.5]  # the middle two are 0.5 and 0.6
    for iou, error in zip(ious, errors, strict=True):
        assert quality.iou_threshold.item() == pytest.approx(0.4)
        quality.see(torch.tensor(iou), torch.tensor(error), loss)
    assert quality.iou_threshold.item() == pytest.approx(0.49)
    assert loss.beta.item() == pytest.approx(0.55)
    assert quality.num_seen == 0
    # Bad proposals lower neither the threshold below its start nor raise beta above its own; nothing seen changes nothing.
    for iou, error in [(0.2, 3.0)] * 5 + [(NOTHING_SEEN, NOTHING_SEEN)] * 5:
        quality.see(torch.tensor(iou), torch.tensor(error), loss)
    assert (quality.iou_threshold.item(), loss.beta.item()) == (pytest.approx(0.4), 1.0)
    loss.beta.fill_(0.3)
    for _ in range(10):
        quality.see(torch.tensor(NOTHING_SEEN), torch.tensor(NOTHING_SEEN), loss)
    assert (quality.iou_threshold.item(), loss.beta.item()) == (pytest.approx(0.4), pytest.approx(0.3))


def test_labels_follow_the_threshold():
    heads = make()
    candidates = Candidates([torch.tensor(TENTHS)])
    before = heads.assign_targets_to_proposals(candidates, targets([OBJECT])[0]).labels
    assert before.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    heads.proposal_quality.iou_threshold.fill_(0.75)
    after = heads.assign_targets_to_proposals(candidates, targets([OBJECT])[0]).labels
    assert after.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_a_training_step_sees_its_proposals():
    heads = make(iou_top_k=3, error_top_k=2, update_every=2)
    losses = step(heads)
    assert losses["roi_heads/iou_threshold"].item() == pytest.approx(0.4)
    assert heads.proposal_quality.ious.tolist() == pytest.approx([0.8, NOTHING_SEEN])
    # Positives are 0.4 ... 1.0 high and the object itself. Their centres are off by (1 - h) / 2 objects, which is
    # 10 (1 - h) / (2 h) in y and 0 in x: 0 for the last two, so the second smallest error is 0.
    assert heads.proposal_quality.errors[0] == 0
    step(heads)
    assert heads.proposal_quality.iou_threshold.item() == pytest.approx(0.8)
    assert heads.moving_box_loss.beta == 1  # errors of nothing say nothing
    assert step(heads)["roi_heads/num_positive"] == 4  # 0.8, 0.9, 1.0 and the object


def test_the_small_error_by_hand():
    heads = make(iou_top_k=3, error_top_k=3, update_every=1)
    step(heads)
    # The third smallest is that of 0.9: dy = 0.05 / 0.9 * 10, and half of it as the mean over x and y.
    assert heads.moving_box_loss.beta.item() == pytest.approx(0.05 / 0.9 * 10 / 2)


def test_evaluation_sees_nothing_and_empty_batches_count_as_steps():
    heads = make(update_every=3).eval()
    step(heads)
    assert heads.proposal_quality.num_seen == 0
    heads.train()
    losses = step(heads, boxes=[], gts=[])
    step(heads, gts=[])
    assert heads.proposal_quality.num_seen == 2
    assert heads.proposal_quality.ious.tolist() == [NOTHING_SEEN] * 3
    assert losses["loss_classifier"] == losses["loss_box_reg"] == 0


def test_what_was_seen_travels_with_the_weights():
    whole = make(iou_top_k=3, error_top_k=3, update_every=4)
    for seed in range(3):
        step(whole, seed=seed)
    resumed = make(iou_top_k=3, error_top_k=3, update_every=4)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for heads in (whole, resumed):
        step(heads, seed=3)
    assert whole.proposal_quality.iou_threshold.item() == pytest.approx(0.8)
    state = whole.state_dict()
    assert {
        "proposal_quality.iou_threshold",
        "proposal_quality._extra_state",
        "box_predictor.box_loss.beta",
    } <= state.keys()
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in state.items())


def test_between_two_updates_nothing_is_read_back_from_the_device(monkeypatch):
    heads = make(iou_top_k=3, error_top_k=3, update_every=3)
    (rois,), given = heads.select_training_samples({}, found(TENTHS), batch()), batch()

    def refuse(tensor):
        raise AssertionError("the host would wait for the device")

    for name in ("__int__", "__float__", "__bool__", "__index__", "item", "tolist", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for _ in range(2):
        iou = mean_top_iou(found(TENTHS), given.targets, top_k=3)
        heads.proposal_quality.see(iou, heads._small_error([rois]), heads.moving_box_loss)
    monkeypatch.undo()
    assert heads.proposal_quality.ious.tolist() == pytest.approx([0.8, 0.8, NOTHING_SEEN])
    assert heads.proposal_quality.num_seen == 2


def test_the_backward_pass_uses_the_beta_of_the_forward_pass():
    heads = make(iou_top_k=3, error_top_k=3, update_every=1)
    losses = step(heads)
    assert heads.moving_box_loss.beta < 1
    (losses["loss_classifier"] + losses["loss_box_reg"]).backward()
    assert all(p.grad.isfinite().all() for p in heads.parameters())


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_the_loss_is_smooth_l1(beta):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).expand(6, 4)
    gt_boxes = boxes + torch.rand(6, 4, generator=generator)
    deltas = torch.randn(6, 4, generator=generator)
    moving = DynamicSmoothL1Loss()
    moving.beta.fill_(beta)
    torch.testing.assert_close(
        moving(BoxCoder(), boxes, deltas, gt_boxes), SmoothL1Loss(beta=beta)(BoxCoder(), boxes, deltas, gt_boxes)
    )


def test_two_processes_see_what_one_sees(monkeypatch):
    """The other process has one image of IoU 0.6 and one error of 0.01 fewer than asked for."""

    def mean(value):
        return (value + torch.tensor([0.6, 1.0])) / 2 if value.shape == (2,) else value

    def together(value):
        return torch.cat((value, torch.tensor([0.01] + [torch.inf] * (len(value) - 1))))

    monkeypatch.setattr("frcnn.modeling.dynamic.mean_over_processes", mean)
    monkeypatch.setattr("frcnn.modeling.dynamic.concatenated_over_processes", together)
    monkeypatch.setattr("frcnn.modeling.dynamic.world_size", lambda: 2)
    heads = make(iou_top_k=3, error_top_k=2, update_every=1)
    step(heads)
    assert heads.proposal_quality.iou_threshold.item() == pytest.approx((0.8 + 0.6) / 2)
    # Of the errors 0, 0, 0.01, 0.05 / 0.9 * 5, ... the fourth smallest is taken: two for each of the two images.
    assert heads.moving_box_loss.beta.item() == pytest.approx(0.05 / 0.9 * 5)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="must be DynamicSmoothL1Loss, got L1Loss"):
        make(box_loss=L1Loss())
    with pytest.raises(ValueError, match=r"initial_iou must be in \(0, 1\], got 40"):
        make(initial_iou=40)
    with pytest.raises(ValueError, match="update_every must be at least 1, got 0"):
        make(update_every=0)
    with pytest.raises(ValueError, match="initial_beta must be above 0, got 0"):
        DynamicSmoothL1Loss(initial_beta=0)
