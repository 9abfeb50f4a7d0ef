"""The parts of Rotated R-CNN by hand."""

from pathlib import Path

import pytest
import torch
from torchvision.ops import roi_align

from frcnn.assembly import require_data_for
from frcnn.config import import_file
from frcnn.errors import UserError
from frcnn.experiment import read_config
from frcnn.modeling.roles import RPNOutput
from frcnn.structures import Batch, Candidates, Detections, FeatureShape, Proposals, ScoredBoxes, Targets

PROJECT = Path(__file__).parents[1]
rpn = import_file(PROJECT / "rotated_rpn.py")
rcnn = import_file(PROJECT / "rotated_rcnn.py")
CONFIG = PROJECT / "configs" / "rotated_shapes.yaml"


def test_anchors_have_every_angle_at_every_place():
    generator = rpn.RotatedAnchorGenerator([8], sizes=((16.0,),), aspect_ratios=(0.25,), angles=(-90.0, 0.0))
    (anchors,) = generator([(1, 2)], (8, 16))
    assert generator.num_anchors == 2
    assert anchors.tolist() == [[0, 0, 32, 8, -90], [0, 0, 32, 8, 0], [8, 0, 32, 8, -90], [8, 0, 32, 8, 0]]


@pytest.mark.parametrize("angles", [(), (180.0,)])
def test_angles_out_of_range_are_refused(angles):
    with pytest.raises(ValueError, match=r"in \[-180, 180\)"):
        rpn.RotatedAnchorGenerator([8], sizes=((16.0,),), aspect_ratios=(1.0,), angles=angles)


def test_the_matcher_measures_the_turned_overlap():
    candidates = Candidates(
        [torch.tensor([[0.0, 0, 8, 4, 10], [0, 0, 8, 4, 100], [0, 0, 8, 4, 190], [0, 2, 8, 4, 10]])]
    )
    targets = Targets(torch.tensor([[0.0, 0, 8, 4, 10]]), torch.tensor([1]))
    matches = rpn.RotatedIoUMatcher(high_threshold=0.7, low_threshold=0.3)(candidates, targets)
    # at right angles 16 of 48 square pixels are shared; two pixels lower, turned by 10 degrees, a little less than half
    assert matches.quality[:3].tolist() == pytest.approx([1, 1 / 3, 1], abs=1e-5)
    assert matches.labels.tolist() == [1, -1, 1, -1]


def test_an_image_without_objects_has_only_negatives():
    nothing = Targets(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    matches = rpn.RotatedIoUMatcher(high_threshold=0.7, low_threshold=0.3)(Candidates([torch.rand(3, 5)]), nothing)
    assert matches.labels.tolist() == [0, 0, 0]


# The IoU of a box and itself moved along w = 10 by d is (10 - d) / (10 + d): 0.54 for d = 3, 0.25 for d = 6.
IN_A_ROW = torch.tensor([[0.0, 0, 10, 4, 0], [3, 0, 10, 4, 0], [6, 0, 10, 4, 0]])


def test_a_suppressed_box_suppresses_nothing():
    index, scores = rpn.RotatedNMS(iou_threshold=0.5)(IN_A_ROW, torch.tensor([0.7, 0.8, 0.6]), torch.zeros(3))
    assert index.tolist() == [1]
    assert scores.tolist() == pytest.approx([0.8])
    index, _ = rpn.RotatedNMS(iou_threshold=0.5)(IN_A_ROW, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3))
    assert index.tolist() == [0, 2]


def test_classes_do_not_touch_each_other_unless_told():
    boxes, scores, classes = IN_A_ROW[[0, 0]], torch.tensor([0.5, 0.6]), torch.tensor([0, 1])
    assert rpn.RotatedNMS(iou_threshold=0.5)(boxes, scores, classes)[0].tolist() == [1, 0]
    assert rpn.RotatedNMS(iou_threshold=0.5, class_agnostic=True)(boxes, scores, classes)[0].tolist() == [1]


def test_nms_is_the_greedy_loop():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(60, 5, generator=generator) * torch.tensor([40, 40, 20, 20, 360]) + torch.tensor(
        [0, 0, 2, 2, -180]
    )
    scores = torch.rand(60, generator=generator)
    overlap = rpn.ops.rotated_iou(boxes, boxes)
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap[i, j] <= 0.2 for j in kept):
            kept.append(i)
    assert rpn.RotatedNMS(iou_threshold=0.2)(boxes, scores, torch.zeros(60))[0].tolist() == kept


def test_nms_of_nothing():
    index, scores = rpn.RotatedNMS(iou_threshold=0.5)(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0))
    assert len(index) == len(scores) == 0


def test_the_head_moves_five_numbers():
    output: RPNOutput = rpn.RotatedRPNHead(4, 3)([torch.zeros(2, 4, 5, 6)])
    assert output.deltas[0].shape == (2, 15, 5, 6)
    assert output.num_deltas == 5


def test_too_small_proposals_and_other_numbers_are_dropped():
    suppress = rpn.SuppressRotatedProposals(
        rpn.RotatedNMS(iou_threshold=0.7),
        rpn.TrainTest(10, 10),
        min_size=1,
        min_size_inclusive=False,
        score_thresh=0.0,
        nms_on="logit",
    )
    boxes = torch.tensor([[5.0, 5, 4, 0.5, 30], [5, 5, 4, 4, float("nan")], [5, 5, 4, 4, 30], [30, 5, 4, 4, 0]])
    zeros = torch.zeros(4, dtype=torch.int64)
    _, row = suppress(Proposals(boxes, torch.zeros(4), zeros, zeros), (10, 10))
    assert row.tolist() == [2]


def make_pooler(**options):
    shapes = {"p2": FeatureShape(2, 4), "p3": FeatureShape(2, 8)}
    return rcnn.RotatedROIAlign(shapes, resolution=3, canonical_size=16, canonical_level=2, **options)


def test_at_angle_0_it_is_roi_align():
    feature = torch.rand(2, 2, 8, 9, generator=torch.Generator().manual_seed(0))
    straight = torch.tensor(
        [[1, 3.0, 2, 30, 20], [0, -9.0, -6, 12, 10], [0, 20, 10, 60, 50], [1, 8, 8, 9, 9]]
    )  # x1 y1 x2 y2
    low, high = straight[:, 1:3], straight[:, 3:]
    rois = torch.cat((straight[:, :1], (low + high) / 2, high - low, torch.zeros(4, 1)), dim=1)
    pooled = make_pooler(sampling_ratio=2).pool(feature, rois, 0.25)
    torch.testing.assert_close(pooled, roi_align(feature, straight, 3, 0.25, 2, aligned=True), atol=1e-4, rtol=0)


def test_a_box_turned_by_90_degrees_sees_the_turned_picture():
    feature = torch.rand(1, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    pooler = make_pooler()
    box = torch.tensor([[0, 18.0, 18, 16, 12, 0], [0, 18, 18, 16, 12, 90]])
    # the picture turned clockwise about its centre (18 px are 4.5 strides) is what a box turned the other way sees
    turned = pooler.pool(feature.rot90(-1, dims=(2, 3)), box[:1], 0.25)
    torch.testing.assert_close(pooler.pool(feature, box[1:], 0.25), turned, atol=1e-5, rtol=0)


def test_each_box_comes_from_the_level_of_its_area_and_in_its_order():
    features = {"p2": torch.zeros(2, 2, 16, 16), "p3": torch.ones(2, 2, 8, 8)}
    large, small = [32.0, 32, 64, 16, 45], [32.0, 32, 8, 8, 45]  # 32 px on a side is one level above 16 px
    boxes = [torch.tensor([large, small]), torch.tensor([large])]
    assert make_pooler()(features, boxes).mean(dim=(1, 2, 3)).tolist() == [1, 0, 1]
    assert make_pooler()(features, [torch.zeros(0, 5), torch.zeros(0, 5)]).shape == (0, 2, 3, 3)


def test_detections_are_chosen_and_scaled_to_the_original_image():
    select = rcnn.SelectRotatedDetections(rcnn.Postprocess(nms=rpn.RotatedNMS(iou_threshold=0.5), score_thresh=0.1))
    boxes = IN_A_ROW[:, None].expand(-1, 2, -1)
    found = select(ScoredBoxes(boxes, torch.tensor([[0.9, 0.05], [0.8, 0.3], [0.7, 0.0]])))
    assert found.index.tolist() == [0, 2, 1]
    assert found.classes.tolist() == [0, 0, 1]


STRAIGHT_MATCHER = "{name: IoUMatcher, high_threshold: 0.5, low_threshold: 0.5}"
STRAIGHT_PREDICTOR = """{name: FastRCNNPredictor, box_coder: {weights: [10, 10, 5, 5]},
    class_loss: {name: SoftmaxCrossEntropy}, box_loss: {name: L1Loss}}"""


@pytest.mark.parametrize(
    ("option", "what"),
    [
        (f"proposal_generator.matcher={STRAIGHT_MATCHER}", "proposal_generator.matcher, IoUMatcher"),
        ("proposal_generator.head={name: ConvRPNHead}", "proposal_generator.head, ConvRPNHead"),
        ("proposal_generator.nms={name: NMS, iou_threshold: 0.7}", "proposal_generator.suppress.nms, NMS"),
        (f"roi_heads.matcher={STRAIGHT_MATCHER}", "roi_heads.matcher, IoUMatcher"),
        ("roi_heads.pooler={name: ROIAlign, resolution: 7}", "roi_heads.box_roi_pool, ROIAlign"),
        (f"roi_heads.box_predictor={STRAIGHT_PREDICTOR}", "roi_heads.box_predictor, FastRCNNPredictor"),
        ("roi_heads.box_predictor.box_loss={name: GIoULoss}", "roi_heads.box_predictor.box_loss, GIoULoss"),
    ],
)
def test_a_part_for_straight_boxes_is_refused_when_the_config_is_read(option, what):
    with pytest.raises(UserError, match=f"has boxes of 5 numbers, but its {what}, is for boxes of 4"):
        read_config(CONFIG, [f"model.{option}"]).build()


def test_straight_data_are_refused_before_they_are_read():
    straight = "data.train.dataset={name: CocoDataset, annotations: none.json, images: none}"
    experiment = read_config(CONFIG, [straight]).build()
    with pytest.raises(
        UserError, match=r"needs rotated_boxes, which data.train.dataset does not give; choose a data set"
    ):
        require_data_for(experiment.model(2), experiment)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return read_config(CONFIG).build().model(2)


def test_to_original_size(detector):
    boxes = torch.tensor([[10.0, 10, 8, 4, 30]])
    found = Detections(boxes, torch.ones(1), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    scaled = detector.to_original_size(found, (50, 50), (100, 100)).boxes
    assert scaled.tolist() == [pytest.approx([20, 20, 16, 8, 30])]


def test_it_learns_from_images_with_and_without_objects_and_predicts_five_numbers(detector):
    objects = Targets(torch.tensor([[32.0, 32, 40, 16, 30]]), torch.tensor([1]))
    nothing = Targets(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    sizes = [(64, 64), (64, 64)]
    batch = Batch(torch.rand(2, 3, 64, 64) * 255, sizes, sizes, [1, 2], targets=[objects, nothing])
    losses = detector.train()(batch).losses
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert detector.roi_heads.box_predictor.bbox_pred.weight.grad.abs().sum() > 0
    with torch.no_grad():
        found = detector.eval()(batch).detections
    assert found[0].boxes.shape[1:] == (5,)
    with torch.no_grad():
        alone = detector.train()(Batch(batch.images[1:], sizes[1:], sizes[1:], [2], targets=[nothing])).losses
    assert alone["loss_box_reg"].item() == alone["loss_rpn_box_reg"].item() == 0
