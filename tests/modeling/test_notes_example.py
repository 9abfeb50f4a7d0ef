"""The example of the notes, number by number: the model of its YAML, on two images that are padded to 800x1248."""

from pathlib import Path

import pytest
import torch

from frcnn.experiment import read_config
from frcnn.structures import Batch, Targets

YAML = Path(__file__).parents[2] / "configs" / "notes" / "faster_rcnn_mobilenet_v2.yaml"
SIZES = [(800, 1242), (770, 1230)]
PARTS = ("head", "anchor_generator", "matcher", "sampler", "suppress.nms")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return read_config(YAML).build().model(3)


@pytest.fixture(scope="module")
def calls(model):
    """Name of a part of the RPN -> (inputs, output) of its calls in one training step without gradient."""
    calls = {name: [] for name in (*PARTS, "rpn", "box_roi_pool")}

    def keep(name):
        return lambda module, inputs, output: calls[name].append((inputs, output))

    rpn = model.proposal_generator
    modules = {name: rpn.get_submodule(name) for name in PARTS}
    modules |= {"rpn": rpn, "box_roi_pool": model.roi_heads.box_roi_pool}
    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    boxes = torch.tensor([[100.0, 100.0, 400.0, 360.0], [700.0, 80.0, 760.0, 150.0]])
    targets = [Targets(boxes, torch.tensor([0, 2]))] * 2
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in SIZES]
    with torch.no_grad():
        model(Batch(images, SIZES, SIZES, [1, 2], targets))
    for handle in handles:
        handle.remove()
    return calls


def test_the_head_has_15_scores_and_60_deltas_a_location(calls):
    ((_, output),) = calls["head"]
    assert [tuple(level.shape) for level in output.objectness] == [(2, 15, 25, 39)]
    assert [tuple(level.shape) for level in output.deltas] == [(2, 60, 25, 39)]


def test_an_image_has_14625_anchors(calls):
    ((_, anchors),) = calls["anchor_generator"]
    assert [len(level) for level in anchors] == [15 * 25 * 39] == [14_625]


def test_concat_box_prediction_layers(model, calls):
    ((_, output),) = calls["head"]
    objectness, deltas = model.proposal_generator.concat_box_prediction_layers(output)
    assert objectness.shape == (29_250, 1)
    assert deltas.shape == (29_250, 4)


def test_assign_targets_to_anchors_gives_every_anchor_a_label(calls):
    for _, matches in calls["matcher"]:
        assert matches.labels.shape == (14_625,)
        assert set(matches.labels.tolist()) == {-1, 0, 1}
        # The notes' numbering: which ground truth, or -1 between the thresholds, or -2 below.
        assert set(matches.matched_idxs.tolist()) == {-2, -1, 0, 1}


def test_256_anchors_are_sampled_and_at_most_half_of_them_are_positive(calls):
    assert len(calls["sampler"]) == 2
    for _, (positive, negative) in calls["sampler"]:
        assert len(positive) + len(negative) == 256
        assert 0 < len(positive) <= 128


def test_filter_proposals_keeps_at_most_2000_before_and_after_nms(model, calls):
    assert model.proposal_generator.suppress.nms.iou_threshold == 0.7
    ((_, (proposals, _)),) = calls["rpn"]
    for (inputs, _), kept, (height, width) in zip(calls["suppress.nms"], proposals, SIZES, strict=True):
        assert 1500 < len(inputs[0]) <= 2000
        assert 0 < len(kept.boxes) <= len(inputs[0])
        assert (kept.boxes >= 0).all()
        assert (kept.boxes <= torch.tensor([width, height, width, height])).all()


def test_rois_are_pooled_to_7x7(calls):
    ((_, pooled),) = calls["box_roi_pool"]
    assert pooled.shape == (1024, 1280, 7, 7)
