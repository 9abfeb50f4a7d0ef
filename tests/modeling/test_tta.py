"""Test-time augmentation around a detector that finds bright rectangles, so that every view can be checked by hand."""

from dataclasses import replace

import pytest
import torch

from frcnn.modeling.roles import Detector
from frcnn.modeling.tta import AugmentedDetector, TestTimeAugmentation, View, mirrored, seen
from frcnn.structures import Batch, Detections, Output


class Bright(Detector):
    """Finds the one bright rectangle of an image, scored by how large the view is; masks are its left half."""

    def __init__(self, fields=frozenset()):
        super().__init__(num_classes=1)
        self.fields = fields
        self.seen = []

    @property
    def detection_fields(self):
        return self.fields

    def forward(self, batch):
        return Output([self.find(batch, i) for i in range(len(batch))], {})

    def find(self, batch, i):
        self.seen.append(tuple(batch.image_sizes[i]))
        y, x = torch.where(batch.images[i][0] > 128)
        box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        (h, w), (original_h, original_w) = batch.image_sizes[i], batch.original_sizes[i]
        box = box * torch.tensor([original_w / w, original_h / h] * 2)
        score = torch.tensor([min(batch.image_sizes[i]) / 100])
        return Detections(box[None], score, torch.tensor([0]), torch.tensor([0]))

    def predict_branches(self, batch, detections):
        left_half = torch.zeros(1, 2, 2)
        left_half[:, :, 0] = 1.0
        return [replace(found, masks=left_half.expand(len(found), 2, 2)) for found in detections]


def batch_of(height=40, width=80, box=(20, 10, 40, 30)):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, box[1] : box[3], box[0] : box[2]] = 255
    return Batch([image], [(height, width)], [(height, width)], [1])


def test_every_view_is_looked_at_and_brought_back():
    detector = Bright()
    options = TestTimeAugmentation(sizes=(40, 80), max_size=100, iou_threshold=0.9)
    output = AugmentedDetector(detector, options).eval()(batch_of())
    # 80 would make the longer side 160; 100 allows 50
    assert detector.seen == [(40, 80), (50, 100), (40, 80), (50, 100)]
    (found,) = output.detections
    assert found.boxes.tolist() == [pytest.approx([20, 10, 40, 30], abs=1.0)]
    assert found.scores.tolist() == [0.5]


def test_wbf_takes_the_mean_weighed_by_score():
    augmented = AugmentedDetector(Bright(), TestTimeAugmentation(sizes=(40,), flip=False, merge="wbf"))

    def view(box, score):
        return Detections(torch.tensor([box]), torch.tensor([score]), torch.tensor([0]), torch.tensor([0]))

    merged = augmented.merge([view([0.0, 0, 10, 10], 0.75), view([2.0, 0, 12, 10], 0.25)])
    assert merged.boxes.tolist() == [[0.5, 0.0, 10.5, 10.0]]
    assert merged.scores.tolist() == [0.5]


class BrightProposal(Bright):
    """Says of the same rectangles that they are objects."""

    tells_classes_apart = False


@pytest.mark.parametrize(
    ("detector", "options", "kept"),
    [
        (Bright(), {}, 100),
        (BrightProposal(), {}, 1000),
        (BrightProposal(), {"iou_threshold": 0.5, "detections_per_image": 7}, 7),
    ],
)
def test_proposals_are_merged_as_proposals_are(detector, options, kept):
    """The IoU of the first two boxes is 0.6: one object found twice, but two proposals. The others touch nothing."""
    corner = 20 * torch.arange(1200.0)[:, None] + 100
    others = torch.cat((corner, corner, corner + 10, corner + 10), dim=1)
    boxes = torch.cat((torch.tensor([[0.0, 0, 10, 10], [0, 0, 6, 10]]), others))  # [1202, 4]
    scores, classes = torch.linspace(1, 0, 1202), torch.zeros(1202, dtype=torch.int64)
    augmented = AugmentedDetector(detector, TestTimeAugmentation(sizes=(40,), **options))
    merged = augmented.merge([Detections(boxes, scores, classes, torch.arange(1202))])
    assert len(merged) == kept
    assert (1 in merged.index.tolist()) == (kept == 1000)


def test_masks_are_the_mean_of_all_views():
    """The detector always says "the left half"; seen in a mirror that is the right half, and the mean is 1/2 everywhere."""
    detector = Bright(fields=frozenset({"masks"}))
    output = AugmentedDetector(detector, TestTimeAugmentation(sizes=(40,))).eval()(batch_of())
    assert output.detections[0].masks.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    upright = AugmentedDetector(detector, TestTimeAugmentation(sizes=(40,), flip=False)).eval()(batch_of())
    assert upright.detections[0].masks.tolist() == [[[1.0, 0.0], [1.0, 0.0]]]


def test_a_mirror_of_a_mirror_is_the_same():
    found = Detections(torch.tensor([[20.0, 10, 40, 30]]), torch.ones(1), torch.tensor([0]), torch.tensor([0]))
    assert mirrored(found, 80).boxes.tolist() == [[40, 10, 60, 30]]
    assert mirrored(mirrored(found, 80), 80).boxes.tolist() == found.boxes.tolist()


def test_proposals_go_with_the_image():
    batch = replace(batch_of(), proposals=[torch.tensor([[20.0, 10, 40, 30]])])
    assert seen(batch, View(80, 1000, flipped=False)).proposals[0].tolist() == [[40, 20, 80, 60]]
    assert seen(batch, View(80, 1000, flipped=True)).proposals[0].tolist() == [[80, 20, 120, 60]]


def test_it_only_predicts():
    augmented = AugmentedDetector(Bright(), TestTimeAugmentation(sizes=(40,)))
    with pytest.raises(ValueError, match="only predicts"):
        augmented.train()(batch_of())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ()}, "sizes must be one or more lengths"),
        ({"sizes": (40,), "iou_threshold": 0.0}, r"iou_threshold must be in \(0, 1\], got 0.0"),
        ({"sizes": (40,), "detections_per_image": 0}, "detections_per_image must be at least 1, got 0"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        TestTimeAugmentation(**options)
