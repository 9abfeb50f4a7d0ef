from functools import partial

import pytest
import torch

from frcnn.modeling.box_heads import ConvBoxHead, TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.cascade import CascadeROIHeads, CascadeStage, ScaleGradient
from frcnn.modeling.losses import L1Loss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.roles import Sampler
from frcnn.modeling.samplers import AllSampler, BalancedPositiveNegativeSampler, OHEMSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, FeatureShape, Proposals, Targets

K = 2
SHAPES = {"p2": FeatureShape(4, 4)}
OBJECT = [8.0, 8.0, 40.0, 40.0]
QUOTA = {"batch_size_per_image": 8, "positive_fraction": 0.25}


def make(samplers=(None, None, None), loss_weights=(1.0, 1.0, 1.0), box_head=None, class_agnostic=True):
    torch.manual_seed(0)
    stages = [
        CascadeStage(
            matcher=IoUMatcher(high_threshold=t, low_threshold=t, allow_low_quality_matches=False),
            sampler=sampler,
            box_predictor=partial(
                FastRCNNPredictor,
                box_coder=BoxCoder((w, w, w / 2, w / 2)),
                class_loss=SoftmaxCrossEntropy,
                box_loss=L1Loss(),
                class_agnostic=class_agnostic,
            ),
            loss_weight=loss_weight,
        )
        for t, w, sampler, loss_weight in zip((0.5, 0.6, 0.7), (10, 20, 30), samplers, loss_weights, strict=False)
    ]
    return CascadeROIHeads(
        SHAPES,
        K,
        in_features=("p2",),
        pooler=partial(ROIAlign, resolution=3),
        box_head=box_head or partial(TwoMLPHead, width=16),
        stages=stages,
        postprocess=Postprocess(nms=NMS(iou_threshold=0.5)),
        branches={},
    )


def still(heads):
    """Makes every stage say the same of every box: all classes equally likely, no movement."""
    with torch.no_grad():
        for predictor in heads.box_predictor:
            for parameter in predictor.parameters():
                parameter.zero_()
    return heads


def features(batch=1):
    return {"p2": torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(3))}


def proposals(*boxes_per_image):
    result = []
    for boxes in boxes_per_image:
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        index = torch.arange(len(boxes))
        result.append(Proposals(boxes, torch.zeros(len(boxes)), torch.zeros_like(index), index))
    return result


def batch(*objects_per_image):
    size = len(objects_per_image)
    targets = [
        Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))
        for boxes in objects_per_image
    ]
    return Batch(torch.zeros(size, 3, 64, 64), [(64, 64)] * size, [(64, 64)] * size, list(range(size)), targets)


def grid(count=20):
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(count, 2, generator=generator) * 40
    return torch.cat((corners, corners + 4 + torch.rand(count, 2, generator=generator) * 20), dim=1).tolist()


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss"))


class Recorder(Sampler):
    batch_size_per_image = None

    def __init__(self):
        super().__init__()
        self.hardness = []

    def forward(self, matches, hardness, generator):
        self.hardness.append(hardness())
        return AllSampler()(matches, hardness, generator)


def test_each_stage_is_pickier_by_hand():
    # Boxes that do not move have IoU 0.55, 0.65 and 0.75 with the object: three, two and one of them are positive, and
    # the ground truth, which was appended once, is positive in every stage.
    heights = [32 * iou for iou in (0.55, 0.65, 0.75)]
    boxes = [[8, 8, 40, 8 + height] for height in heights]
    _, losses = still(make())(features(), proposals(boxes), batch([OBJECT]))
    assert [losses[f"roi_heads/num_positive_stage{i}"].item() for i in range(3)] == [4, 3, 2]
    assert [losses[f"roi_heads/num_negative_stage{i}"].item() for i in range(3)] == [0, 1, 2]


def test_stages_start_from_the_boxes_of_the_one_before():
    # The first stage moves every box by its own width to the right, where the object is: dx = 10 means one width.
    heads = still(make())
    with torch.no_grad():
        heads.box_predictor[0].bbox_pred.bias[0] = 10.0
    _, losses = heads(features(), proposals([[0, 0, 10, 10], [0, 20, 10, 30]]), batch([[10, 0, 20, 10]]))
    # The ground truth itself moved away; of the two proposals one arrived.
    assert [losses[f"roi_heads/num_positive_stage{i}"].item() for i in range(3)] == [1, 1, 1]
    assert losses["roi_heads/num_negative_stage1"] == 2


def test_boxes_that_became_empty_are_dropped_in_training_only():
    # Everything moves one width to the right: the box at the edge leaves the image of 64 px and is clipped to nothing.
    heads = still(make())
    with torch.no_grad():
        heads.box_predictor[0].bbox_pred.bias[0] = 10.0
    boxes = proposals([[54, 0, 64, 10], [0, 0, 10, 10]])
    rois_seen = []
    heads.box_roi_pool.register_forward_hook(lambda module, inputs, output: rois_seen.append(len(output)))
    heads(features(), boxes, batch([]))
    assert rois_seen == [2, 1, 1]
    rois_seen.clear()
    heads.eval().predict(features(), [boxes[0].boxes], [(64, 64)])
    assert rois_seen == [2, 2, 2]


def test_scores_are_averaged_and_boxes_come_from_the_last_stage():
    heads = still(make()).eval()
    with torch.no_grad():
        heads.box_predictor[0].cls_score.bias[:] = torch.tensor([1.0, 0.0, 0.0]).log().clamp(min=-100)  # 1 0 | 0
        heads.box_predictor[1].cls_score.bias[:] = torch.tensor([0.5, 0.25, 0.25]).log()
        heads.box_predictor[2].cls_score.bias[:] = torch.tensor([0.3, 0.5, 0.2]).log()
        heads.box_predictor[0].bbox_pred.bias[0] = 10.0  # one width of 10 px to the right
        heads.box_predictor[2].bbox_pred.bias[1] = 30.0  # and one height down
    scored = heads.predict(features(), [torch.tensor([[0.0, 0, 10, 10]])], [(64, 64)])[0]
    torch.testing.assert_close(scored.scores, torch.tensor([[0.6, 0.25]]))
    torch.testing.assert_close(scored.boxes, torch.tensor([[[10.0, 10, 20, 20]] * K]))


def test_losses_are_weighted_by_stage():
    args = features(), proposals(grid()), batch([OBJECT])
    _, plain = make()(*args)
    _, weighted = make(loss_weights=(1.0, 0.5, 0.25))(*args)
    for stage, weight in enumerate((1.0, 0.5, 0.25)):
        for name in (f"loss_classifier_stage{stage}", f"loss_box_reg_stage{stage}"):
            torch.testing.assert_close(weighted[name], plain[name] * weight)


def test_gradient_of_the_features_is_divided_by_the_number_of_stages():
    x = torch.ones(3, requires_grad=True)
    y = ScaleGradient.apply(x, 1 / 3)
    assert torch.equal(y, x)
    (y * 6).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3,), 2.0))


def test_no_gradient_flows_from_a_stage_to_the_boxes_of_the_one_before():
    heads = make()
    _, losses = heads(features(), proposals(grid()), batch([OBJECT]))
    (losses["loss_box_reg_stage1"] + losses["loss_classifier_stage1"]).backward()
    assert heads.box_predictor[0].bbox_pred.weight.grad is None
    assert heads.box_head[1].fc1.weight.grad.abs().sum() > 0


def test_later_stages_keep_every_box_and_the_first_may_sample():
    heads = make(samplers=(BalancedPositiveNegativeSampler(**QUOTA), None, None))
    _, losses = heads(features(), proposals(grid()), batch([OBJECT]))
    for stage in range(3):
        count = losses[f"roi_heads/num_positive_stage{stage}"] + losses[f"roi_heads/num_negative_stage{stage}"]
        assert count == 8


def test_a_random_sampler_never_asks_for_hardness():
    heads = make(samplers=[BalancedPositiveNegativeSampler(**QUOTA) for _ in range(3)])
    runs = []
    for head in heads.box_head:
        head.register_forward_hook(lambda module, inputs, output: runs.append(len(output)))
    heads(features(), proposals(grid()), batch([OBJECT]))
    assert runs == [8, 8, 8]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_hardness_is_the_loss_of_the_stage_itself(stage):
    recorder = Recorder()
    heads = make(samplers=[recorder if number == stage else None for number in range(3)])
    _, losses = heads(features(2), proposals(grid(), grid(4)), batch([OBJECT], []))
    total_of_stage = losses[f"loss_classifier_stage{stage}"] + losses[f"loss_box_reg_stage{stage}"]
    torch.testing.assert_close(torch.cat(recorder.hardness).mean(), total_of_stage.detach())


def test_ohem_in_the_second_stage_takes_the_hardest_by_hand():
    recorder = Recorder()
    boxes, given = proposals(grid()), batch([])
    make(samplers=(None, recorder, None))(features(), boxes, given)
    _, losses = make(samplers=(None, OHEMSampler(**QUOTA), None))(features(), boxes, given)
    hardest = recorder.hardness[0].topk(8).values  # all are negative, and all 20 boxes reached the second stage
    torch.testing.assert_close(losses["loss_classifier_stage1"].detach(), hardest.mean())
    assert losses["roi_heads/num_negative_stage2"] == 8


def test_indices_still_name_the_proposal_after_three_stages():
    heads = make(samplers=[OHEMSampler(**QUOTA) for _ in range(3)])
    given = batch([OBJECT])
    _, rois = heads.compute_losses(features(), proposals(grid()), given)
    candidates = torch.tensor([*grid(), OBJECT])
    torch.testing.assert_close(rois[0].boxes, candidates[rois[0].index])


def test_ohem_leaves_batch_norm_to_the_training_pass():
    head = partial(ConvBoxHead, num_convs=1, conv_channels=4, fc_width=8, norm="BN")
    heads = make(samplers=[OHEMSampler(**QUOTA) for _ in range(3)], box_head=head)
    heads(features(), proposals(grid()), batch([OBJECT]))
    assert [box_head.convs[0].norm.num_batches_tracked.item() for box_head in heads.box_head] == [1, 1, 1]


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_empty_images_and_empty_batches(class_agnostic):
    heads = make(class_agnostic=class_agnostic)
    for boxes in ((grid(), []), ([], [])):
        _, losses = heads(features(2), proposals(*boxes), batch([], []))
        assert torch.isfinite(total(losses))
        total(losses).backward()
        assert all(parameter.grad is not None for parameter in heads.parameters())
    detections, _ = heads.eval()(features(2), proposals([], []), batch([], []))
    assert [len(d) for d in detections] == [0, 0]


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="at least one stage"):
        make(samplers=())
    with pytest.raises(ValueError, match="loss_weight must be at least 0, got -1"):
        make(loss_weights=(-1.0, 1.0, 1.0))
