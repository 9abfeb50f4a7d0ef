from functools import partial

import pytest
import torch

from frcnn.modeling.box_heads import ConvBoxHead, TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.losses import L1Loss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.res5_roi_heads import Res5Head, Res5ROIHeads
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.roi_sampling import label_candidates
from frcnn.modeling.roles import Matcher, ROIBranch, Sampler
from frcnn.modeling.samplers import AllSampler, BalancedPositiveNegativeSampler, OHEMSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, Detections, DrawKey, FeatureShape, Matches, Proposals, Targets

K = 2
SHAPES = {"p2": FeatureShape(4, 4), "p3": FeatureShape(4, 8)}
PREDICTOR = partial(
    FastRCNNPredictor, box_coder=BoxCoder((10, 10, 5, 5)), class_loss=SoftmaxCrossEntropy, box_loss=L1Loss()
)
OBJECT = [8.0, 8.0, 40.0, 40.0]


def make(cls=StandardROIHeads, sampler=None, matcher=None, box_head=None, **options):
    torch.manual_seed(0)
    options.setdefault("branches", {})
    if cls is StandardROIHeads:
        options["box_head"] = box_head or partial(TwoMLPHead, width=16)
    return cls(
        options.pop("feature_shapes", SHAPES),
        K,
        in_features=options.pop("in_features", ("p2", "p3")),
        matcher=matcher or IoUMatcher(high_threshold=0.5, low_threshold=0.5, allow_low_quality_matches=False),
        sampler=sampler or BalancedPositiveNegativeSampler(batch_size_per_image=8, positive_fraction=0.25),
        pooler=partial(ROIAlign, resolution=3),
        box_predictor=PREDICTOR,
        postprocess=Postprocess(nms=NMS(iou_threshold=0.5)),
        **options,
    )


def features(batch=2):
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(batch, 4, 64 // s.stride, 64 // s.stride, generator=generator) for name, s in SHAPES.items()
    }


def proposals(*boxes_per_image):
    result = []
    for boxes in boxes_per_image:
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        index = torch.arange(len(boxes))
        result.append(Proposals(boxes, torch.zeros(len(boxes)), torch.zeros_like(index), index))
    return result


def targets(*per_image):
    return [
        Targets(
            torch.tensor([box for box, _ in objects], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([number for _, number in objects], dtype=torch.int64),
        )
        for objects in per_image
    ]


def batch(given=None, size=2, **key):
    return Batch(
        torch.zeros(size, 3, 64, 64),
        [(64, 64)] * size,
        [(64, 64)] * size,
        list(range(size)),
        given,
        None,
        DrawKey(**key),
    )


def grid(count=30):
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(count, 2, generator=generator) * 40
    return torch.cat((corners, corners + 4 + torch.rand(count, 2, generator=generator) * 20), dim=1).tolist()


class Recorder(Sampler):
    """Takes everything, and keeps the losses it was offered."""

    batch_size_per_image = None

    def __init__(self):
        super().__init__()
        self.hardness = []

    def forward(self, matches, hardness, generator):
        self.hardness.append(hardness())
        return AllSampler()(matches, hardness, generator)


def test_select_training_samples_by_hand():
    # Proposal 0 overlaps the object by 0.75, proposal 1 not at all; the ground truth itself is candidate 2.
    given = targets([(OBJECT, 1)])
    heads = make(sampler=AllSampler())
    rois = heads.select_training_samples({}, proposals([[8, 8, 40, 32], [50, 50, 60, 60]]), batch(given, 1))[0]
    assert rois.index.tolist() == [0, 2, 1]
    assert rois.classes.tolist() == [1, 1, K]
    assert rois.gt_boxes[:2].tolist() == [OBJECT, OBJECT]
    assert rois.boxes[1].tolist() == OBJECT


def test_ground_truths_are_not_appended_when_told_so():
    heads = make(sampler=AllSampler(), append_gt=False)
    rois = heads.select_training_samples({}, proposals([[0, 0, 4, 4]]), batch(targets([(OBJECT, 1)]), 1))[0]
    assert rois.index.tolist() == [0]


def test_a_discarded_candidate_has_no_class():
    matches = Matches(torch.tensor([0, 0, 0]), torch.tensor([1, 0, -1]), torch.tensor([0.9, 0.1, 0.5]))
    rois = label_candidates(torch.ones(3, 4), matches, targets([(OBJECT, 1)])[0], K)
    assert rois.classes.tolist() == [1, K, K]


def test_draws_depend_on_the_key_and_the_place_in_the_global_batch():
    given = targets([(OBJECT, 0)], [(OBJECT, 0)])
    boxes = proposals(grid(), grid())
    heads = make()

    def drawn(**key):
        return [r.index.tolist() for r in heads.select_training_samples({}, boxes, batch(given, **key))]

    first = drawn(iteration=7)
    assert drawn(iteration=7) == first
    assert drawn(iteration=8) != first
    # The second image of a process that starts at image 0 is the first of one that starts at image 1.
    assert drawn(iteration=7, first_image=1)[0] == first[1]
    assert first[0] != first[1]


def test_mixed_batch_has_losses_and_gradients_everywhere():
    heads = make()
    maps = {name: value.requires_grad_() for name, value in features().items()}
    detections, losses = heads(maps, proposals(grid(), grid(3)), batch(targets([(OBJECT, 1)], [])))
    assert detections is None
    assert losses["roi_heads/num_positive"] == 0.5
    assert losses["roi_heads/num_negative"] == (7 + 3) / 2
    (losses["loss_classifier"] + losses["loss_box_reg"]).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())
    assert maps["p2"].grad.abs().sum() > 0


def test_a_batch_without_anything():
    heads = make()
    _, losses = heads(features(), proposals([], []), batch(targets([], [])))
    assert losses["loss_classifier"] == losses["loss_box_reg"] == 0
    (losses["loss_classifier"] + losses["loss_box_reg"]).backward()
    assert heads.box_head.fc1.weight.grad.abs().sum() == 0
    detections, _ = heads.eval()(features(), proposals([], []), batch())
    assert [len(d) for d in detections] == [0, 0]


def test_proposals_receive_no_gradient():
    boxes = proposals(grid())
    boxes[0].boxes.requires_grad_()
    _, losses = make()(features(1), boxes, batch(targets([(OBJECT, 1)]), 1))
    losses["loss_box_reg"].backward()
    assert boxes[0].boxes.grad is None


def test_training_without_targets_says_what_to_do():
    with pytest.raises(ValueError, match="call eval"):
        make()(features(), proposals([], []), batch())


def test_evaluation_with_targets_gives_detections_and_the_training_losses():
    heads = make().eval()
    boxes, given = proposals(grid(), grid(5)), batch(targets([(OBJECT, 1)], []))
    detections, losses = heads(features(), boxes, given)
    without, no_losses = heads(features(), boxes, batch())
    assert no_losses == {}
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(detections, without, strict=True))
    _, training_losses = heads.train()(features(), boxes, given)
    assert losses.keys() == training_losses.keys()
    torch.testing.assert_close(losses["loss_classifier"], training_losses["loss_classifier"])


def test_detections_say_which_proposal_they_came_from():
    heads = make().eval()
    with torch.no_grad():
        heads.box_predictor.cls_score.weight.zero_()
        heads.box_predictor.bbox_pred.weight.zero_()
    boxes = [[0, 0, 10, 10], [30, 30, 50, 50], [-5, 0, 10, 70]]
    detections, _ = heads(features(1), proposals(boxes), batch(size=1))
    assert detections[0].scores.tolist() == pytest.approx([1 / 3] * 6)
    clipped = torch.tensor([[0.0, 0, 10, 10], [30, 30, 50, 50], [0, 0, 10, 64]])
    assert torch.equal(detections[0].boxes, clipped[detections[0].index])


def test_predict_on_given_boxes_is_what_detections_are_made_of():
    heads = make().eval()
    scored = heads.predict(features(), [torch.tensor(grid(4)), torch.zeros(0, 4)], [(64, 64)] * 2)
    assert [s.boxes.shape for s in scored] == [(4, K, 4), (0, K, 4)]
    detections, _ = heads(features(), proposals(grid(4), []), batch())
    found = detections[0]
    assert torch.equal(found.scores, scored[0].scores[found.index, found.classes])


def test_a_random_sampler_never_runs_the_head():
    heads = make()
    heads.box_head.register_forward_hook(lambda *_: pytest.fail("the head ran"))
    heads.select_training_samples(features(), proposals(grid(), grid()), batch(targets([(OBJECT, 1)], [])))


def test_hardness_is_the_loss_of_every_candidate_and_the_head_runs_once():
    recorder = Recorder()
    heads = make(sampler=recorder)
    runs = []
    heads.box_head.register_forward_hook(lambda module, inputs, output: runs.append(len(output)))
    _, losses = heads(features(), proposals(grid(6), grid(3)), batch(targets([(OBJECT, 1)], [])))
    assert [len(h) for h in recorder.hardness] == [7, 3]
    assert runs == [10, 10]  # once for all candidates of the batch, once for the sampled ones, which here are all
    total = losses["loss_classifier"] + losses["loss_box_reg"]
    torch.testing.assert_close(torch.cat(recorder.hardness).mean(), total.detach())


def test_ohem_takes_the_hardest_by_hand():
    recorder = Recorder()
    boxes, given = proposals(grid()), batch(targets([(OBJECT, 1)]), 1)
    make(sampler=recorder).select_training_samples(features(1), boxes, given)
    hardness = recorder.hardness[0]  # 30 proposals, which are negative, and the ground truth
    rois = make(sampler=OHEMSampler(batch_size_per_image=4, positive_fraction=0.5)).select_training_samples(
        features(1), boxes, given
    )[0]
    assert rois.index[0] == 30
    assert set(rois.index[1:].tolist()) == set(hardness[:30].topk(3).indices.tolist())


def test_hardness_leaves_no_trace():
    heads = make(
        sampler=OHEMSampler(batch_size_per_image=4, positive_fraction=0.25),
        box_head=partial(ConvBoxHead, num_convs=1, conv_channels=4, fc_width=8, norm="BN"),
    )
    norm = heads.box_head.convs[0].norm
    heads.select_training_samples(features(), proposals(grid(), grid()), batch(targets([(OBJECT, 1)], [])))
    assert norm.num_batches_tracked == 0
    assert norm.running_mean.abs().sum() == 0
    assert norm.training
    assert heads.training


def test_evaluation_losses_leave_batch_norm_alone():
    heads = make(box_head=partial(ConvBoxHead, num_convs=1, conv_channels=4, fc_width=8, norm="BN")).eval()
    before = {name: value.clone() for name, value in heads.state_dict().items()}
    heads(features(), proposals(grid(), grid()), batch(targets([(OBJECT, 1)], [])))
    assert all(torch.equal(value, before[name]) for name, value in heads.state_dict().items())


def test_the_head_still_learns_after_it_was_asked_under_autocast():
    # Autocast remembers the bfloat16 copies of weights; before PyTorch 2.11 one made without gradient was used again.
    heads = make(sampler=OHEMSampler(batch_size_per_image=4, positive_fraction=0.25))
    with torch.autocast("cpu", torch.bfloat16):
        _, losses = heads(features(), proposals(grid(), grid()), batch(targets([(OBJECT, 1)], [])))
        loss = losses["loss_classifier"] + losses["loss_box_reg"]
    assert loss.dtype == torch.float32
    loss.backward()
    assert heads.box_head.fc1.weight.grad.abs().sum() > 0


def test_a_matcher_may_ask_what_the_head_says():
    class BestClassOne(Matcher):
        def forward(self, candidates, targets):
            predictions = candidates.predictions()
            assert predictions.boxes.shape == (len(candidates.boxes), 4)
            assert not predictions.logits.requires_grad
            labels = (predictions.logits.argmax(dim=1) == 1).long()
            return Matches(torch.zeros_like(labels), labels, labels.float())

    heads = make(matcher=BestClassOne(), sampler=AllSampler())
    rois = heads.select_training_samples(
        features(), proposals(grid(), grid()), batch(targets([(OBJECT, 0)], [(OBJECT, 0)]))
    )
    assert [len(r) for r in rois] == [31, 31]


def test_branches_follow_the_boxes():
    class Shrink(ROIBranch):
        def __init__(self, feature_shapes, num_classes, shared_shape):
            super().__init__()
            assert set(feature_shapes) == {"p2", "p3"}
            assert shared_shape is None  # two fully connected layers make no map

        def forward(self, features, rois, targets, shared=None):
            return {"loss_shrink": features["p2"].mean() * len(rois)}

        def predict(self, features, detections, shared=None):
            return [Detections(d.boxes / 2, d.scores, d.classes, d.index) for d in detections]

    heads = make(branches={"shrink": Shrink})
    _, losses = heads(features(), proposals(grid(), grid()), batch(targets([(OBJECT, 1)], [])))
    assert "loss_shrink" in losses
    plain, _ = make().eval()(features(), proposals(grid(), grid()), batch())
    shrunk, _ = heads.eval()(features(), proposals(grid(), grid()), batch())
    torch.testing.assert_close(shrunk[0].boxes, plain[0].boxes / 2)


def test_branches_may_be_trained_on_the_predicted_boxes():
    seen = []

    class Watch(ROIBranch):
        def forward(self, features, rois, targets, shared=None):
            seen.extend(rois)
            return {}

    def run(**options):
        seen.clear()
        heads = make(sampler=AllSampler(), branches={"watch": lambda *wiring: Watch()}, **options)
        with torch.no_grad():
            heads.box_predictor.bbox_pred.bias[4] = 15.0  # class 1 moves by one and a half widths
            heads.box_predictor.bbox_pred.weight.zero_()
        losses = heads(features(1), proposals([[8, 8, 40, 32], [58, 50, 64, 60]]), batch(targets([(OBJECT, 1)]), 1))[1]
        return losses, seen[0]

    losses, sampled = run()
    losses_too, moved = run(train_on_pred_boxes=True)
    assert losses == losses_too
    assert sampled.boxes.tolist() == [[8, 8, 40, 32], OBJECT, [58, 50, 64, 60]]
    # Both positives moved by 48 px and were clipped; background moved out of the image, and is left out.
    torch.testing.assert_close(moved.boxes, torch.tensor([[56.0, 8, 64, 32], [56, 8, 64, 40]]))
    assert moved.index.tolist() == [0, 2]
    assert torch.equal(moved.gt_boxes, sampled.gt_boxes[:2])
    assert not moved.boxes.requires_grad


def test_unknown_feature_names_are_refused():
    with pytest.raises(ValueError, match=r"in_features has p7, which is none of the feature maps p2, p3"):
        make(in_features=("p2", "p7"))


def test_res5_heads_are_standard_heads_with_a_resnet_stage():
    shapes = {"res4": FeatureShape(64, 16)}
    heads = make(Res5ROIHeads, feature_shapes=shapes, in_features=("res4",), depth=18, norm="BN", stem_channels=16)
    assert isinstance(heads.box_head, Res5Head)
    assert heads.box_head.out_channels == 128
    maps = {"res4": torch.randn(2, 64, 4, 4)}
    detections, losses = heads.eval()(maps, proposals(grid(), grid()), batch(targets([(OBJECT, 1)], [])))
    assert losses["loss_classifier"] > 0
    assert len(detections) == 2
    with pytest.raises(ValueError, match="res5 of ResNet-50 reads 1024 channels, but 64 are pooled"):
        make(Res5ROIHeads, feature_shapes=shapes, in_features=("res4",))
