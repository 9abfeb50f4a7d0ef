"""Masks and keypoints under every kind of ROI heads, and in the whole detector."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from frcnn.modeling.box_heads import TwoMLPHead
from frcnn.modeling.box_predictors import FastRCNNPredictor
from frcnn.modeling.branches import KeypointBranch, MaskBranch
from frcnn.modeling.cascade import CascadeROIHeads, CascadeStage
from frcnn.modeling.losses import L1Loss, SoftmaxCrossEntropy
from frcnn.modeling.matchers import IoUMatcher
from frcnn.modeling.nms import NMS
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.modeling.res5_roi_heads import Res5ROIHeads
from frcnn.modeling.roi_heads import StandardROIHeads
from frcnn.modeling.samplers import AllSampler
from frcnn.ops.boxes import BoxCoder
from frcnn.ops.masks import cut_masks
from frcnn.structures import Batch, Detections, FeatureShape, Proposals, Targets

K, J = 2, 3
SHAPES = {"res4": FeatureShape(64, 16)}
POOLED = {"in_features": ("res4",), "pooler": partial(ROIAlign, resolution=4)}
MASK = partial(MaskBranch, num_convs=1, conv_channels=8)
KEYPOINT = partial(KeypointBranch, num_keypoints=J, num_convs=1, conv_channels=8)
OBJECT = [8.0, 8.0, 40.0, 40.0]


def matcher():
    return IoUMatcher(high_threshold=0.5, low_threshold=0.5, allow_low_quality_matches=False)


def make(kind, branches):
    torch.manual_seed(0)
    predictor = partial(
        FastRCNNPredictor, box_coder=BoxCoder((10, 10, 5, 5)), class_loss=SoftmaxCrossEntropy, box_loss=L1Loss()
    )
    shared = {
        "in_features": ("res4",),
        "pooler": partial(ROIAlign, resolution=6),
        "postprocess": Postprocess(nms=NMS(iou_threshold=0.5)),
        "branches": branches,
    }
    if kind == "cascade":
        stages = [CascadeStage(matcher=matcher(), sampler=AllSampler(), box_predictor=predictor) for _ in range(2)]
        return CascadeROIHeads(SHAPES, K, box_head=partial(TwoMLPHead, width=16), stages=stages, **shared)
    shared |= {"matcher": matcher(), "sampler": AllSampler(), "box_predictor": predictor}
    if kind == "res5":
        return Res5ROIHeads(SHAPES, K, depth=18, stem_channels=16, **shared)
    return StandardROIHeads(SHAPES, K, box_head=partial(TwoMLPHead, width=16), **shared)


def features(requires_grad=False):
    maps = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(3))
    return {"res4": maps.requires_grad_(requires_grad)}


def proposals():
    boxes = torch.tensor([[8.0, 8, 40, 36], [8, 12, 40, 40], [50, 50, 60, 60]])
    return [Proposals(boxes, torch.zeros(3), torch.zeros(3, dtype=torch.int64), torch.arange(3))] * 2


def batch(targets):
    return Batch(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2, [(64, 64)] * 2, [0, 1], targets)


def one_object():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 8:40, 8:24] = True
    keypoints = torch.tensor([[[10.0, 10, 2], [30, 30, 1], [0, 0, 0]]])
    return Targets(torch.tensor([OBJECT]), torch.tensor([1]), cut_masks(mask), keypoints)


def no_object():
    empty = cut_masks(torch.zeros(0, 64, 64, dtype=torch.bool))
    return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), empty, torch.zeros(0, J, 3))


def branches_of(kind):
    """Under Res5 heads the mask reads res5, as in detectron2's C4 detectors."""
    mask = MASK if kind == "res5" else partial(MASK, **POOLED)
    return {"mask": mask, "keypoint": partial(KEYPOINT, **POOLED)}


@pytest.mark.parametrize("kind", ["standard", "res5", "cascade"])
def test_both_branches_learn_and_detect(kind):
    heads = make(kind, branches_of(kind))
    maps = features(requires_grad=True)
    nothing, losses = heads(maps, proposals(), batch([one_object(), no_object()]))
    assert nothing is None
    assert losses["loss_mask"] > 0
    assert losses["loss_keypoint"] > 0
    (losses["loss_mask"] + losses["loss_keypoint"]).backward()
    assert all(p.grad is not None for branch in heads.branches.values() for p in branch.parameters())
    assert maps["res4"].grad[0].abs().sum() > 0
    assert maps["res4"].grad[1].abs().sum() == 0  # no object, nothing to learn

    with torch.no_grad():
        detections, losses = heads.eval()(features(), proposals(), batch(None))
    assert losses == {}
    for found in detections:
        assert len(found) > 0
        assert found.masks.shape == (len(found), 6 if kind == "res5" else 8, 6 if kind == "res5" else 8)
        assert found.keypoints.shape == (len(found), J, 3)


@pytest.mark.parametrize("kind", ["standard", "res5", "cascade"])
def test_a_batch_without_objects_has_losses_of_zero(kind):
    heads = make(kind, branches_of(kind))
    _, losses = heads(features(), proposals(), batch([no_object(), no_object()]))
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    assert losses["loss_mask"] == losses["loss_keypoint"] == 0
    assert all(p.grad.isfinite().all() for branch in heads.branches.values() for p in branch.parameters())


def test_masks_of_c4_detectors_are_made_of_res5():
    heads = make("res5", {"mask": MASK}).eval()
    boxes = [torch.tensor([OBJECT]), torch.zeros(0, 4)]
    given = [Detections(b, torch.ones(len(b)), torch.ones(len(b)).long(), torch.arange(len(b))) for b in boxes]
    with torch.no_grad():
        found = heads.predict_branches(features(), given)
        res5 = heads.box_head.res5(heads.box_roi_pool(features(), boxes))  # [1, 128, 3, 3]
        expected = heads.branches["mask"].head(res5)[:, 1].sigmoid()
    torch.testing.assert_close(found[0].masks, expected)
    assert len(found[1].masks) == 0
    heads.train()(features(), proposals(), batch([one_object(), no_object()]))[1]["loss_mask"].backward()
    assert all(p.grad is not None for p in heads.box_head.res5.parameters())


def test_a_cascade_shares_no_map_so_that_its_branches_need_a_pooler():
    with pytest.raises(ValueError, match="MaskBranch without a pooler"):
        make("cascade", {"mask": MASK})


def test_a_cascade_trains_its_branches_on_the_rois_of_the_first_stage():
    heads = make("cascade", {"mask": partial(MASK, **POOLED)})
    seen = []
    heads.branches["mask"].head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    _, losses = heads(features(), proposals(), batch([one_object(), no_object()]))
    assert seen == [3]  # two proposals and the ground truth
    assert losses["roi_heads/num_positive_stage0"] == 1.5


def test_validation_has_losses_and_detections():
    heads = make("standard", branches_of("standard")).eval()
    with torch.no_grad():
        detections, losses = heads(features(), proposals(), batch([one_object(), no_object()]))
    assert losses["loss_mask"] > 0
    assert detections[0].masks is not None


def fpn_branches():
    pooled = {"in_features": ("p2", "p3", "p4", "p5"), "pooler": partial(ROIAlign, resolution=4)}
    return {"mask": partial(MASK, **pooled), "keypoint": partial(KEYPOINT, num_keypoints=1, **pooled)}


def test_a_detector_says_what_it_fills(tiny_detector):
    assert tiny_detector("standard", "random", fpn_branches()).detection_fields == {"masks", "keypoints"}
    assert tiny_detector("standard", "random").detection_fields == set()


def test_keypoints_are_scaled_to_the_original_image_and_masks_stay_in_their_boxes(tiny_detector, tiny_batch):
    torch.manual_seed(0)
    model = tiny_detector("standard", "random", fpn_branches()).eval()
    small = replace(tiny_batch, original_sizes=tiny_batch.image_sizes, targets=None)
    with torch.no_grad():
        model.roi_heads.postprocess.score_thresh = 0.0
        large, small = (model(b).detections[0] for b in (replace(tiny_batch, targets=None), small))
    assert len(large) == len(small) > 0
    torch.testing.assert_close(large.boxes, 2 * small.boxes)
    torch.testing.assert_close(large.keypoints[..., :2], 2 * small.keypoints[..., :2])
    torch.testing.assert_close(large.keypoints[..., 2], small.keypoints[..., 2])
    assert torch.equal(large.masks, small.masks)


def test_fifty_steps_learn_one_mask(tiny_detector, tiny_batch):
    """The object is the left half of its box: after some steps the masks of its class say so."""
    torch.manual_seed(0)
    mask = torch.zeros(1, 96, 128, dtype=torch.bool)
    mask[0, 10:60, 20:50] = True
    targets = [
        replace(tiny_batch.targets[0], masks=cut_masks(mask)),
        replace(tiny_batch.targets[1], masks=cut_masks(torch.zeros(0, 80, 96, dtype=torch.bool))),
    ]
    model = tiny_detector("standard", "random", {"mask": fpn_branches()["mask"]})
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(50):
        losses = model(replace(tiny_batch, targets=targets)).losses
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("loss")).backward()
        optimizer.step()
    assert losses["loss_mask"] < 0.5 * math.log(2)  # which is what knowing nothing costs
    found = model.eval()(replace(tiny_batch, targets=None)).detections[0]
    best = found.masks[0]
    assert (best[:, :3] > 0.5).float().mean() > 0.8
    assert (best[:, 5:] < 0.5).float().mean() > 0.8
