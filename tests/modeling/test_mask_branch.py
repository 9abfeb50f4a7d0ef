import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from frcnn.errors import UserError
from frcnn.modeling.branches import MaskBranch
from frcnn.modeling.poolers import ROIAlign
from frcnn.structures import Detections, FeatureShape, InstanceMasks, Rois, ROIShape, Targets

K = 3
SHAPES = {"p2": FeatureShape(4, 4)}
POOLED = {"in_features": ("p2",), "pooler": partial(ROIAlign, resolution=4)}


def make(**options):
    torch.manual_seed(0)
    return MaskBranch(SHAPES, K, None, **{"num_convs": 1, "conv_channels": 8, **POOLED, **options})


def features(batch=2):
    return {"p2": torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(1))}


def rois(*rows):
    """Rows of (box, class, object)."""
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    numbers = torch.tensor([row[1:] for row in rows], dtype=torch.int64).reshape(-1, 2)
    return Rois(boxes, numbers[:, 0], boxes, numbers[:, 1], torch.arange(len(rows)))


def square(x1, y1, x2, y2):
    """An object that fills its box, in an image of 64 x 64."""
    pixels = torch.ones(y2 - y1, x2 - x1, dtype=torch.uint8)
    masks = InstanceMasks(
        torch.nn.functional.pad(pixels, (1, 1, 1, 1)).flatten(), torch.tensor([[x1 - 1, y1 - 1, x2 + 1, y2 + 1]])
    )
    return Targets(torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32), torch.tensor([1]), masks)


def nothing():
    empty = InstanceMasks(torch.zeros(0, dtype=torch.uint8), torch.zeros(0, 4, dtype=torch.int64))
    return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), empty)


def say(branch, *logits_per_class):
    """Makes the head say one logit for each class, everywhere."""
    with torch.no_grad():
        branch.head.predictor.weight.zero_()
        branch.head.predictor.bias.copy_(torch.tensor(logits_per_class))
    return branch


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize("mask_targets", ["binary", "soft"])
def test_the_loss_is_the_mean_over_positives_in_their_own_class_by_hand(mask_targets):
    # Two positives of class 1 and a background; the object fills the first box, and the second box not at all. With
    # logit 2 everywhere an inner pixel costs log(1 + e^-2), an outer one log(1 + e^2). Other classes do not count.
    branch = say(make(mask_targets=mask_targets), 50.0, 2.0, -50.0)
    sampled = [rois(([12, 12, 28, 28], 1, 0), ([44, 44, 60, 60], 1, 0), ([0, 0, 64, 64], K, 0)), rois()]
    loss = branch(features(), sampled, [square(8, 8, 40, 40), nothing()])["loss_mask"]
    assert loss.item() == pytest.approx((softplus(-2) + softplus(2)) / 2)


def test_targets_of_both_conventions_by_hand():
    # The object's left half of a box of 8 x 8: with a grid of 8 cells the pixels are seen as they are where their values
    # lie at their centres; where values lie at the corners, the edges are halves.
    box = rois(([8, 8, 16, 16], 1, 0))
    target = square(8, 4, 12, 20)
    binary = make(mask_targets="binary").gt_masks(target.masks, box, 8)[0]
    assert binary[3].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    soft = make(mask_targets="soft").gt_masks(target.masks, box, 8)[0]
    assert soft[3].tolist() == [1, 1, 1, 0.5, 0, 0, 0, 0]


def test_detections_get_the_mask_of_their_class():
    branch = say(make(), -1.0, 0.0, 2.0).eval()
    boxes = torch.tensor([[0.0, 0, 20, 20], [10, 10, 40, 40]])
    found = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([2, 0]), torch.tensor([0, 1]))
    none = found.select(torch.zeros(0, dtype=torch.int64))
    first, second = branch.predict(features(), [found, none])
    assert first.masks.shape == (2, 8, 8)
    torch.testing.assert_close(first.masks[:, 3, 5], torch.tensor([2.0, -1.0]).sigmoid())
    assert second.masks.shape == (0, 8, 8)
    assert torch.equal(first.boxes, boxes)


def test_one_mask_for_all_classes():
    branch = say(make(class_agnostic=True), 2.0)
    loss = branch(features(1), [rois(([12, 12, 28, 28], 1, 0))], [square(8, 8, 40, 40)])["loss_mask"]
    assert loss.item() == pytest.approx(softplus(-2))
    found = Detections(torch.tensor([[0.0, 0, 20, 20]]), torch.ones(1), torch.tensor([2]), torch.tensor([0]))
    assert branch.predict(features(1), [found])[0].masks.mean().item() == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize("norm", [None, "BN", "GN"])
def test_without_positives_the_loss_is_zero_with_a_gradient(norm):
    branch = make(norm=norm)
    maps = {"p2": features()["p2"].requires_grad_()}
    loss = branch(maps, [rois(([0, 0, 9, 9], K, 0)), rois()], [square(8, 8, 40, 40), nothing()])["loss_mask"]
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in branch.parameters())
    assert branch.eval()(maps, [rois(), rois()], [nothing(), nothing()])["loss_mask"] == 0


def test_a_branch_without_a_pooler_reads_the_map_of_the_box_head():
    branch = MaskBranch(SHAPES, K, ROIShape(6, 5), num_convs=0, conv_channels=8)
    asked = []

    def shared(boxes_per_image):
        asked.append([len(boxes) for boxes in boxes_per_image])
        return torch.ones(sum(asked[-1]), 6, 5, 5)

    sampled = [rois(([12, 12, 28, 28], 1, 0), ([0, 0, 9, 9], K, 0)), rois()]
    assert branch({}, sampled, [square(8, 8, 40, 40), nothing()], shared)["loss_mask"] > 0
    found = Detections(torch.tensor([[0.0, 0, 20, 20]]), torch.ones(1), torch.tensor([2]), torch.tensor([0]))
    assert branch.predict({}, [found], shared)[0].masks.shape == (1, 10, 10)
    assert asked == [[1, 0], [1]]


def test_a_branch_that_could_read_nothing_is_refused():
    with pytest.raises(ValueError, match=r"MaskBranch without a pooler reads the map .* this box head makes none"):
        make(in_features=(), pooler=None)
    with pytest.raises(ValueError, match=r"without a pooler nothing is read from in_features, got \['p2'\]"):
        make(pooler=None)
    with pytest.raises(ValueError, match="in_features must name feature maps of p2"):
        make(in_features=())


def test_a_data_set_without_masks_is_named():
    with pytest.raises(UserError, match="MaskBranch is trained on masks, and the data set gives none"):
        make()(features(1), [rois()], [replace(nothing(), masks=None)])


def test_detectron2_draws_the_last_layer_small_and_torchvision_does_not():
    assert make(conv_channels=64).head.predictor.weight.std().item() == pytest.approx(0.001, rel=0.2)
    # kaiming: sqrt(2 / number of outputs)
    assert make(conv_channels=64, init="kaiming").head.predictor.weight.std().item() == pytest.approx(
        math.sqrt(2 / K), rel=0.2
    )
