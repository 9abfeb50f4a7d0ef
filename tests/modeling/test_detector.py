import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch

from frcnn.modeling.detector import FasterRCNN
from frcnn.modeling.roles import Backbone, Neck, ProposalGenerator, ROIHeads
from frcnn.structures import Batch, Detections, FeatureShape, Output, Proposals, Targets


class Pixels(Backbone):
    """Gives the image back as a feature map."""

    size_divisibility = 4

    def __init__(self):
        super().__init__()
        self.feature_shapes = {"image": FeatureShape(3, 1)}

    def forward(self, images):
        return {"image": images}


class Negative(Neck):
    size_divisibility = 6

    def __init__(self, feature_shapes):
        super().__init__()
        self.feature_shapes = {name: FeatureShape(s.channels, 2 * s.stride) for name, s in feature_shapes.items()}

    def forward(self, features):
        return {name: -value for name, value in features.items()}


class NoProposals(ProposalGenerator):
    def __init__(self, feature_shapes):
        super().__init__()
        self.given = feature_shapes

    def forward(self, features, batch):
        assert batch.images.shape[-2:] == batch.padded_size
        return [], {} if batch.targets is None else {"loss_objectness": features["image"].mean()}


class FixedBoxes(ROIHeads):
    """Detects two fixed boxes in every image: one in the corner, and one behind the right edge of an image 10 wide."""

    def __init__(self, feature_shapes, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, features, proposals, batch):
        if self.training:
            return None, {}
        boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 2.0, 12.0, 4.0]])
        return [
            Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), torch.arange(2))
            for _ in range(len(batch))
        ], {}


def make(**options):
    options = {
        "pixel_mean": (10.0, 20.0, 30.0),
        "pixel_std": (1.0, 2.0, 5.0),
        "backbone": Pixels(),
        "necks": [],
        "proposal_generator": NoProposals,
        "roi_heads": FixedBoxes,
    } | options
    return FasterRCNN(2, **options)


def batch(images, original_sizes=None, targets=None):
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    return Batch(images, sizes, original_sizes or sizes, list(range(len(images))), targets)


def test_normalises_then_pads_to_the_largest_image_and_the_divisor():
    first = torch.full((3, 5, 6), 100, dtype=torch.uint8)
    second = torch.zeros(3, 8, 3, dtype=torch.uint8)
    padded = make().prepare([first, second], [(5, 6), (8, 3)])
    assert padded.shape == (2, 3, 8, 8)
    assert padded.dtype == torch.float32
    assert padded[0, :, 4, 5].tolist() == [90.0, 40.0, 14.0]
    assert padded[1, :, 7, 2].tolist() == [-10.0, -10.0, -6.0]
    assert padded[0, :, 5:].abs().sum() == padded[0, :, :, 6:].abs().sum() == padded[1, :, :, 3:].abs().sum() == 0


def test_bgr_weights_get_bgr_images_and_bgr_means():
    image = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1).expand(3, 4, 4)
    padded = make(channel_order="BGR", pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0)).prepare([image], [(4, 4)])
    assert padded[0, :, 0, 0].tolist() == [3.0, 2.0, 1.0]


def test_a_stacked_batch_equals_a_list_and_its_padding_becomes_zero():
    images = [torch.rand(3, 5, 6) * 255, torch.rand(3, 8, 3) * 255]
    stacked = torch.full((2, 3, 8, 8), 7.0)
    for row, image in zip(stacked, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    sizes = [(5, 6), (8, 3)]
    assert torch.equal(make().prepare(stacked, sizes), make().prepare(images, sizes))


def test_padding_suits_backbone_and_necks_unless_told():
    assert make().size_divisibility == 4
    assert make(necks=[Negative]).size_divisibility == 12
    assert make(necks=[Negative], size_divisibility=1).prepare([torch.zeros(3, 5, 7)], [(5, 7)]).shape[-2:] == (5, 7)


def test_necks_are_chained():
    detector = make(necks=[Negative, Negative])
    assert detector.proposal_generator.given == {"image": FeatureShape(3, 4)}
    losses = make(necks=[Negative], size_divisibility=1)(
        batch([torch.full((3, 2, 2), 40.0)], targets=[Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])
    ).losses
    assert losses["loss_objectness"].item() == pytest.approx(-(30 + 10 + 2) / 3)


def test_detections_are_scaled_per_axis_clipped_and_emptied_of_nothing():
    # The network saw 8 x 10 (h x w); the file is 16 x 30: x is scaled by 3, y by 2.
    image = torch.zeros(3, 8, 10)
    output = make().eval()(batch([image], original_sizes=[(16, 30)]))
    assert isinstance(output, Output)
    assert output.losses == {}
    found = output.detections[0]
    assert found.boxes.tolist() == [[3.0, 4.0, 9.0, 8.0]]  # the second box became empty at the right edge
    assert found.index.tolist() == [0]
    untouched = make(clip_detections=False).eval()(batch([image], original_sizes=[(16, 30)])).detections[0]
    assert untouched.boxes.tolist() == [[3.0, 4.0, 9.0, 8.0], [30.0, 4.0, 36.0, 8.0]]


def test_training_mode_has_losses_and_no_detections():
    given = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    output = make()(batch([torch.zeros(3, 8, 8)], targets=given))
    assert output.detections is None
    assert list(output.losses) == ["loss_objectness"]


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="std above 0"):
        make(pixel_std=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="size_divisibility must be at least 1, got 0"):
        make(size_divisibility=0)


class TwoProposals(ProposalGenerator):
    def __init__(self, feature_shapes):
        super().__init__()

    def forward(self, features, batch):
        boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 2.0, 12.0, 4.0]])
        index = torch.tensor([7, 3])
        found = [Proposals(boxes, torch.tensor([0.0, -1.0]), torch.zeros_like(index), index) for _ in range(len(batch))]
        return found, {}


@dataclass(frozen=True)
class Named(Proposals):
    names: list[str]


class NamedProposals(NoProposals):
    proposal_type = Named


class ReadsNames(FixedBoxes):
    proposal_type = Named


class Cubes(FixedBoxes):
    box_dim = 6


class HasCubes(FixedBoxes):
    def __init__(self, feature_shapes, num_classes):
        super().__init__(feature_shapes, num_classes)
        self.inner = Cubes(feature_shapes, num_classes)


def test_roi_heads_that_read_more_of_a_proposal_than_is_given_are_refused():
    make(proposal_generator=NamedProposals, roi_heads=ReadsNames)
    make(proposal_generator=NamedProposals)  # to give more than is read is fine
    with pytest.raises(ValueError, match="ReadsNames reads Named, but NoProposals gives Proposals: choose other"):
        make(roi_heads=ReadsNames)


def test_a_part_for_other_boxes_is_refused():
    message = "FasterRCNN has boxes of 4 numbers, but its roi_heads.inner, Cubes, is for boxes of 6"
    with pytest.raises(ValueError, match=message):
        make(roi_heads=HasCubes)


def test_without_roi_heads_the_proposals_are_the_detections():
    detector = make(proposal_generator=TwoProposals, roi_heads=None)
    image = torch.zeros(3, 8, 16)
    assert detector(batch([image])).detections is None
    (found,) = detector.eval()(batch([image], original_sizes=[(16, 48)])).detections
    assert found.boxes.tolist() == [[3.0, 4.0, 9.0, 8.0], [30.0, 4.0, 36.0, 8.0]]
    assert found.scores.tolist() == pytest.approx([0.5, 1 / (1 + math.e)])
    assert found.classes.tolist() == [0, 0]
    assert found.index.tolist() == [0, 1]


def test_a_detector_of_proposals_trains_and_detects(tiny_detector, tiny_batch):
    detector = tiny_detector("standard", "random", roi_heads=None)
    losses = detector(tiny_batch).losses
    assert {name for name in losses if name.startswith("loss")} == {"loss_objectness", "loss_rpn_box_reg"}
    detections = detector.eval()(replace(tiny_batch, targets=None)).detections
    assert [len(found) for found in detections] == [50, 50]
    assert all((found.scores.diff() <= 0).all() for found in detections)


def test_means_are_no_weights():
    assert list(make().state_dict()) == []


@pytest.mark.parametrize(("kind", "sampler"), list(itertools.product(["standard", "cascade"], ["random", "ohem"])))
def test_the_whole_detector_overfits_one_batch(tiny_detector, tiny_batch, kind, sampler):
    torch.manual_seed(0)
    detector = tiny_detector(kind, sampler)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    for step in range(60):
        losses = detector(replace(tiny_batch, draw=replace(tiny_batch.draw, iteration=step))).losses
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("loss")).backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    with torch.no_grad():
        first, empty = detector.eval()(tiny_batch).detections
    best = first.select(torch.tensor([0]))
    assert best.scores.item() > 0.5
    assert best.classes.tolist() == [1]
    assert (best.boxes[0] - 2 * tiny_batch.targets[0].boxes[0]).abs().max() < 40  # the file is twice as large
    assert len(empty) == 0 or empty.scores.max() < best.scores.item()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_a_box_of_one_pixel_has_finite_losses_in_half_precision(tiny_detector, tiny_batch, precision):
    small = Targets(torch.tensor([[100.0, 80.0, 101.0, 81.0]]), torch.tensor([1]))
    torch.manual_seed(0)
    detector = tiny_detector("standard", "random")
    with torch.autocast("cpu", precision):
        losses = detector(replace(tiny_batch, targets=[small, tiny_batch.targets[1]])).losses
    for name, value in losses.items():
        assert value.dtype == torch.float32, name
        assert torch.isfinite(value), name
    assert losses["roi_heads/num_positive"] > 0
