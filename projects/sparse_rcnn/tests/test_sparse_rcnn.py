"""Sparse R-CNN by hand."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from frcnn.config import import_file
from frcnn.errors import UserError
from frcnn.experiment import read_config
from frcnn.modeling.losses import GIoULoss, SigmoidFocalLoss
from frcnn.modeling.matchers import HungarianMatcher
from frcnn.modeling.poolers import ROIAlign
from frcnn.modeling.postprocess import Postprocess
from frcnn.ops.boxes import BoxCoder
from frcnn.structures import Batch, FeatureShape, Targets

PROJECT = Path(__file__).parents[1]
K, P, C = 2, 4, 8
SHAPES = {"p2": FeatureShape(C, 4), "p3": FeatureShape(C, 8)}
OBJECT = Targets(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1]))
NOTHING = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


@pytest.fixture(scope="module")
def project():
    return import_file(PROJECT / "sparse_rcnn.py")


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return import_file(PROJECT / "learned_proposals.py").LearnedProposals(SHAPES, num_proposals=P)


def make_heads(project, stage=None, **options):
    torch.manual_seed(1)
    stage = {"num_heads": 2, "inner_channels": 4, "feedforward_channels": 16, **(stage or {})}
    options = {"num_stages": 2, **options}
    return project.SparseROIHeads(
        SHAPES,
        K,
        in_features=("p2", "p3"),
        pooler=partial(ROIAlign, resolution=3, sampling_ratio=1),
        matcher=HungarianMatcher(class_weight=2),
        class_loss=partial(SigmoidFocalLoss, loss_weight=2.0),
        box_loss=GIoULoss(loss_weight=2.0),
        box_coder=BoxCoder((2.0, 2.0, 1.0, 1.0)),
        postprocess=Postprocess(nms=project.KeepAll(), score_thresh=0.0),
        stage=project.StageOptions(**stage),
        **options,
    )


def features(batch_size=2):
    draw = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(batch_size, C, 64 // shape.stride, 64 // shape.stride, generator=draw)
        for name, shape in SHAPES.items()
    }


def make_batch(*targets, sizes=((64, 64), (48, 64))):
    return Batch(torch.zeros(len(sizes), 3, 64, 64), sizes, sizes, range(len(sizes)), targets or None)


def test_every_proposal_is_the_whole_image_before_training(generator):
    first, second = generator(features(), make_batch())[0]
    assert first.boxes.tolist() == [[0, 0, 64, 64]] * P
    assert second.boxes.tolist() == [[0, 0, 64, 48]] * P  # 48 high, 64 wide
    assert first.index.tolist() == [0, 1, 2, 3]
    assert first.features is generator.features


def test_a_learned_box_is_a_part_of_the_image(generator):
    with torch.no_grad():
        generator.boxes[0] = torch.tensor([0.5, 0.25, 0.5, 0.5])
    boxes = generator(features(), make_batch())[0][0].boxes
    assert boxes[0].tolist() == [16, 0, 48, 32]


def test_the_proposal_feature_decides_what_is_seen_in_a_box(project):
    """With the first convolution's weights 1 for a cell's first channel, D = 1, the answer is the norm of that channel."""
    conv = project.DynamicConv(channels=2, inner_channels=1, resolution=1)
    conv.norm1 = conv.norm2 = conv.norm3 = torch.nn.Identity()
    with torch.no_grad():
        conv.make_weights.weight.zero_()
        conv.make_weights.weight[:, 0] = torch.tensor([1.0, 0.0, 2.0, 3.0])  # in: first channel; out: 2 and 3 times it
        conv.make_weights.bias.zero_()
        conv.out.weight.copy_(torch.eye(2))
        conv.out.bias.zero_()
    roi_features = torch.tensor([5.0, 7.0]).reshape(1, 2, 1, 1)
    assert conv(torch.tensor([[1.0, 0.0]]), roi_features).tolist() == [[10, 15]]
    assert conv(torch.tensor([[2.0, 0.0]]), roi_features).tolist() == [[40, 60]]  # both convolutions are twice as large
    assert conv(torch.tensor([[0.0, 1.0]]), roi_features).tolist() == [[0, 0]]


def test_one_proposal_is_paired_with_each_object_and_the_losses_are_as_computed_by_hand(project):
    heads = make_heads(project)
    boxes = torch.tensor([[[0.0, 0, 64, 64], [8, 8, 40, 40], [8, 8, 40, 56], [0, 0, 8, 8]]])  # [1, P, 4]
    refined = project.Refined(boxes, torch.zeros(1, P, K), torch.zeros(1, P, 4), boxes)
    batch = make_batch(OBJECT, sizes=((64, 64),))
    rois = heads.assign_targets_to_proposals(refined, batch)[0]
    assert rois.classes.tolist() == [K, 1, K, K]

    losses = heads.losses(refined, batch)
    # Logits 0: focal loss of a one is alpha (1 - p)^2 ln 2, of a zero (1 - alpha) p^2 ln 2; 1 and 7 of them, weight 2.
    assert float(losses["loss_classifier"]) == pytest.approx(2 * (0.25 + 7 * 0.75) * 0.25 * math.log(2))
    assert float(losses["loss_box_reg"]) == pytest.approx(0)
    assert float(losses["loss_box_l1"]) == 0

    moved = boxes + torch.tensor([6.4, 0.0, 6.4, 0.0])  # a tenth of the image to the right, at two sides: L1 is 0.2
    moved_losses = heads.losses(refined._replace(moved=moved), batch)
    assert float(moved_losses["loss_box_l1"]) == pytest.approx(5 * 0.2)


def test_boxes_learn_from_the_first_stage_and_features_from_all(project, generator):
    heads = make_heads(project)
    batch = make_batch(OBJECT, NOTHING)
    _, losses = heads(features(), generator(features(), batch)[0], batch)
    assert sorted(losses)[:6] == sorted(
        f"loss_{name}_stage{stage}" for name in ("classifier", "box_reg", "box_l1") for stage in (0, 1)
    )
    with_boxes = [
        name
        for name, loss in losses.items()
        if loss.requires_grad
        and torch.autograd.grad(loss, generator.boxes, retain_graph=True, allow_unused=True)[0] is not None
    ]
    assert with_boxes == ["loss_box_reg_stage0", "loss_box_l1_stage0"]
    sum(loss for loss in losses.values() if loss.requires_grad).backward()
    assert generator.features.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())


def test_images_without_objects_have_a_loss_of_classes_alone(project, generator):
    batch = make_batch(NOTHING, NOTHING)
    _, losses = make_heads(project)(features(), generator(features(), batch)[0], batch)
    assert losses["loss_box_reg_stage0"].item() == losses["loss_box_l1_stage1"].item() == 0
    total = sum(loss for name, loss in losses.items() if name.startswith("loss"))
    total.backward()
    assert total.isfinite() and generator.features.grad.isfinite().all() and generator.boxes.grad.isfinite().all()


def test_evaluation_gives_every_class_of_every_proposal_within_the_image(project, generator):
    heads = make_heads(project).eval()
    detections, losses = heads(features(), generator(features(), make_batch())[0], make_batch())
    assert losses == {}
    assert [len(found) for found in detections] == [P * K, P * K]
    assert all((found.scores.diff() <= 0).all() for found in detections)
    assert detections[1].boxes[:, 3].max() <= 48


def test_nothing_is_suppressed(project):
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(3, 1)
    index, scores = project.KeepAll()(boxes, torch.tensor([0.2, 0.9, 0.5]), torch.zeros(3, dtype=torch.int64))
    assert index.tolist() == [1, 2, 0]
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.2])


def test_a_region_proposal_network_before_these_heads_is_refused_when_the_config_is_read(tmp_path):
    text = (PROJECT / "configs" / "shapes_sparse_rcnn.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("  proposal_generator:")]
    with_rpn = "\n".join(lines).replace("../../..", str(PROJECT.parents[1])).replace("../", f"{PROJECT}/")
    (tmp_path / "rpn.yaml").write_text(with_rpn)
    with pytest.raises(
        UserError, match=r"reads LearnedRegions, but RegionProposalNetwork gives Proposals: .*LearnedPro"
    ):
        read_config(tmp_path / "rpn.yaml").build()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": {"num_heads": 3}}, "num_heads must divide the 8 channels"),
        ({"stage": {"inner_channels": 0}}, "inner_channels must be at least 1, got 0"),
        ({"num_stages": 0}, "num_stages must be at least 1, got 0"),
        ({"prior_probability": 1.0}, "prior_probability must be between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(project, options, message):
    with pytest.raises(ValueError, match=message):
        make_heads(project, **options)


def test_the_config_is_right():
    read_config(PROJECT / "configs" / "shapes_sparse_rcnn.yaml").build()
