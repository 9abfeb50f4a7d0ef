import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from frcnn.errors import UserError
from frcnn.modeling.branches import KeypointBranch
from frcnn.modeling.poolers import ROIAlign
from frcnn.structures import Detections, FeatureShape, Rois, Targets

K = 1
SHAPES = {"p2": FeatureShape(4, 4)}
OBJECT = [8.0, 8.0, 40.0, 40.0]


def make(**options):
    torch.manual_seed(0)
    options = {"num_convs": 1, "conv_channels": 8, "num_keypoints": 2, **options}
    return KeypointBranch(SHAPES, K, None, in_features=("p2",), pooler=partial(ROIAlign, resolution=2), **options)


def features(batch=2):
    return {"p2": torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(1))}


def rois(*rows):
    """Rows of (box, class, object)."""
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    numbers = torch.tensor([row[1:] for row in rows], dtype=torch.int64).reshape(-1, 2)
    return Rois(boxes, numbers[:, 0], boxes, numbers[:, 1], torch.arange(len(rows)))


def target(*keypoints):
    return Targets(torch.tensor([OBJECT]), torch.tensor([0]), keypoints=torch.tensor([keypoints], dtype=torch.float32))


def nothing(num_keypoints=2):
    return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), keypoints=torch.zeros(0, num_keypoints, 3))


def all_alike(branch):
    with torch.no_grad():
        branch.head.deconv.weight.zero_()
    return branch


def test_the_loss_is_the_mean_over_keypoints_that_count_by_hand():
    # All 8 x 8 cells are equally likely, so a keypoint costs log 64. Of the four keypoints two count: one is not
    # labelled, and one lies outside the second box.
    branch = all_alike(make())
    sampled = [rois((OBJECT, 0, 0)), rois((OBJECT, 0, 0), ([0, 0, 9, 9], K, 0))]
    targets = [target((20, 20, 2), (30, 30, 0)), target((20, 20, 1), (50, 50, 2))]
    loss = branch(features(), sampled, targets)["loss_keypoint"]
    assert loss.item() == pytest.approx(math.log(64))
    # detectron2's other choice divides by a number for each image: here 5 for each of the two.
    static = all_alike(make(normalizer_per_image=5.0))
    assert static(features(), sampled, targets)["loss_keypoint"].item() == pytest.approx(2 * math.log(64) / 10)


def test_the_head_does_not_look_at_boxes_without_keypoints():
    branch = make()
    seen = []
    branch.head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    sampled = [rois((OBJECT, 0, 0), ([38, 38, 60, 60], 0, 0))]
    branch(features(1), sampled, [target((20, 20, 2), (30, 30, 1))])
    assert seen == [1]


def test_without_keypoints_the_loss_is_zero_with_a_gradient():
    branch = make()
    maps = {"p2": features()["p2"].requires_grad_()}
    loss = branch(maps, [rois((OBJECT, 0, 0)), rois()], [target((20, 20, 0), (30, 30, 0)), nothing()])["loss_keypoint"]
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in branch.parameters())


def test_detections_get_keypoints_inside_their_boxes():
    branch = make().eval()
    boxes = torch.tensor([[0.0, 0, 20, 20], [10, 10, 40, 42.5]])
    found = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), torch.tensor([0, 1]))
    first, second = branch.predict(features(), [found, found.select(torch.zeros(0, dtype=torch.int64))])
    assert first.keypoints.shape == (2, 2, 3)
    assert (first.keypoints[:, :, :2] >= boxes[:, None, :2]).all()
    assert (first.keypoints[:, :, :2] <= boxes[:, None, 2:]).all()
    assert ((first.keypoints[:, :, 2] > 0) & (first.keypoints[:, :, 2] < 1)).all()
    assert second.keypoints.shape == (0, 2, 3)


def test_heatmaps_have_four_times_the_pooled_resolution():
    assert make().head(torch.zeros(1, 4, 14, 14)).shape == (1, 2, 56, 56)


def test_another_number_of_keypoints_is_named_with_both():
    with pytest.raises(UserError, match="num_keypoints: 2, and the objects of the data set have 17"):
        make()(features(1), [rois()], [nothing(17)])
    with pytest.raises(UserError, match="KeypointBranch is trained on keypoints, and the data set gives none"):
        make()(features(1), [rois()], [replace(nothing(), keypoints=None)])


def test_options_are_checked():
    with pytest.raises(ValueError, match="normalizer_per_image must be above 0, or null, got 0"):
        make(normalizer_per_image=0)
    with pytest.raises(ValueError, match="num_keypoints 1 or more, got 1, 8 and 0"):
        make(num_keypoints=0)
