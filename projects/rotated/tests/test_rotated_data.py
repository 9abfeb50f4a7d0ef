"""Reading, turning and measuring rotated boxes, by hand and on files."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from frcnn.config import import_file
from frcnn.data.collate import pack
from frcnn.data.roles import Category, Dataset, GroundTruth, Sample
from frcnn.errors import UserError
from frcnn.evaluation.coco import CocoEvaluator
from frcnn.evaluation.results import coco_results
from frcnn.inspect.objects import detected_objects
from frcnn.structures import Detections

PROJECT = Path(__file__).parents[1]
data = import_file(PROJECT / "rotated_data.py")
evaluation = import_file(PROJECT / "rotated_evaluation.py")
drawing = import_file(PROJECT / "make_rotated.py")
RNG = np.random.default_rng(0)


def write(folder, annotations):
    cv2.imwrite(str(folder / "1.png"), np.zeros((20, 30, 3), np.uint8))
    images = [{"id": 7, "file_name": "1.png", "height": 20, "width": 30}]
    categories = [{"id": 5, "name": "plane"}, {"id": 3, "name": "ship"}]
    (folder / "a.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return data.RotatedCocoDataset(annotations=str(folder / "a.json"), images=str(folder))


def test_five_numbers_are_read_and_travel_to_the_batch(tmp_path):
    box = {"image_id": 7, "category_id": 5, "bbox": [10, 8, 6, 4, 190]}
    dataset = write(tmp_path, [box, {**box, "iscrowd": 1}])
    assert [category.name for category in dataset.categories] == ["ship", "plane"]
    assert dataset[0].boxes.tolist() == [[10, 8, 6, 4, -170]]
    assert dataset[0].classes.tolist() == [1]
    assert dataset.ground_truth().areas.tolist() == [24, 24]
    (targets,) = pack([dataset[0]], with_targets=True).unpack().targets
    assert targets.boxes.shape == (1, 5)


def test_an_image_without_objects_has_no_rows_of_five(tmp_path):
    assert write(tmp_path, [])[0].boxes.shape == (0, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3, 4]}, r"annotations\[1\] \(id 9\): bbox has 4 numbers; expected five"),
        ({"bbox": [1, 2, 3, 0, 5]}, r"sides w and h above 0"),
        ({"bbox": [1, 2, "3", 4, 5]}, r"Expected `float`, got `str`.*annotations\[1\].bbox\[2\]"),
        ({"image_id": 8}, "no image with the id 8"),
        ({"category_id": 1}, "no category with the id 1; choices: 3, 5"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path, change, message):
    good = {"id": 4, "image_id": 7, "category_id": 5, "bbox": [10, 8, 6, 4, 0]}
    with pytest.raises(UserError, match=message):
        write(tmp_path, [good, {**good, "id": 9, **change}]).load()


def test_straight_boxes_are_fitted_to_their_polygons(tmp_path):
    # the square on its tip with the corners (10 +- 4, 10), (10, 10 +- 4), stretched along one diagonal
    corners = [[6, 14], [4, 12], [12, 4], [14, 6]]
    box = {"image_id": 7, "category_id": 5, "bbox": [4, 4, 10, 10], "segmentation": [np.ravel(corners).tolist()]}
    dataset = write(tmp_path, [box])
    dataset.straight_boxes = "fit"
    expected = [9, 9, np.sqrt(128), np.sqrt(8), 45]
    assert dataset[0].boxes[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_straight_boxes_without_polygons_cannot_be_fitted(tmp_path):
    dataset = write(tmp_path, [{"image_id": 7, "category_id": 5, "bbox": [4, 4, 10, 10]}])
    dataset.straight_boxes = "fit"
    with pytest.raises(UserError, match="needs polygons"):
        dataset.load()


def sample(*boxes):
    image = RNG.integers(0, 255, (20, 40, 3), dtype=np.uint8)
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 5), np.zeros(len(boxes), np.int64), 1, (20, 40))


def test_a_mirror_turns_the_other_way_and_twice_is_nothing():
    before = sample([10, 5, 8, 4, 30], [20, 5, 8, 4, -180])
    once = data.flip_rotated(before)
    assert once.boxes.tolist() == [[30, 5, 8, 4, -30], [20, 5, 8, 4, -180]]
    twice = data.flip_rotated(once)
    assert np.array_equal(twice.boxes, before.boxes)
    assert np.array_equal(twice.image, before.image)


def test_the_mirrored_box_lies_on_the_mirrored_object():
    box = [40.0, 50.0, 60.0, 12.0, 25.0]
    painted = drawing.cover(128, box, "bar")
    mirrored = data.flip_rotated(
        Sample(np.repeat(painted[..., None], 3, 2), np.array([box], np.float32), None, 1, (1, 1))
    )
    assert drawing.cover(128, mirrored.boxes[0].tolist(), "bar") == pytest.approx(mirrored.image[..., 0], abs=1e-3)


def test_flips_are_drawn():
    flip = data.RotatedHorizontalFlip(probability=0.5)
    flipped = [flip(sample([10, 5, 8, 4, 30]), np.random.default_rng(i), None).boxes[0, 0] == 30 for i in range(40)]
    assert 10 < sum(flipped) < 30


def test_resizing_takes_the_boxes_along():
    resized = data.RotatedResize(sizes=[10])(sample([10, 5, 8, 4, 30]), RNG, None)
    assert resized.image.shape == (10, 20, 3)
    assert resized.boxes.tolist() == [[5, 2.5, 4, 2, 30]]
    to_predict = replace(sample(), boxes=np.zeros((0, 4), np.float32))
    assert data.RotatedResize(sizes=[10])(to_predict, RNG, None).boxes.shape == (0, 5)


class Objects(Dataset):
    def __init__(self, ground_truth):
        self.truth = ground_truth

    def ground_truth(self):
        return self.truth


def random_boxes(rng, count):
    corner, sides = rng.uniform(0, 60, (count, 2)), rng.uniform(5, 130, (count, 2))
    return np.concatenate([corner, corner + sides], axis=1)  # x1 y1 x2 y2


def as_rotated(boxes):
    boxes = torch.as_tensor(boxes)
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros(len(boxes), 1, dtype=boxes.dtype)], dim=1)


def straight_problem(seed):
    """Objects, crowds among them, and detections of which some lie near objects and some share a score."""
    rng = np.random.default_rng(seed)
    boxes, image_index = random_boxes(rng, 30), np.sort(rng.integers(0, 6, 30))
    truth = GroundTruth(
        categories=(Category(1, "a"), Category(2, "b"), Category(3, "never there")),
        image_ids=np.array([5, 3, 9, 1, 2, 8]),
        image_sizes=np.full((6, 2), 200),
        image_index=image_index,
        classes=rng.integers(0, 2, 30),
        boxes=boxes,
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        iscrowd=rng.random(30) < 0.15,
    )
    found = {}
    for place, image_id in enumerate(truth.image_ids.tolist()):
        near = boxes[image_index == place].repeat(3, axis=0)
        near = near + rng.normal(0, 4, near.shape)
        guesses = np.concatenate([near, random_boxes(rng, 8)])
        scores = torch.from_numpy(rng.integers(1, 12, len(guesses)) / 12)
        classes = torch.from_numpy(rng.integers(0, 2, len(guesses)))
        found[image_id] = Detections(torch.from_numpy(guesses), scores, classes, torch.arange(len(guesses)))
    return truth, found


@pytest.mark.parametrize("seed", [0, 1])
def test_at_angle_0_the_metrics_are_cocos(seed):
    truth, found = straight_problem(seed)
    expected = CocoEvaluator(Objects(truth), backend="pycocotools")(found)
    rotated = replace(truth, boxes=as_rotated(truth.boxes).numpy())
    result = evaluation.RotatedEvaluator(Objects(rotated))(
        {image_id: replace(d, boxes=as_rotated(d.boxes)) for image_id, d in found.items()}
    )
    assert 5 < expected.metrics["bbox/AP"] < 95
    assert result.metrics == pytest.approx(expected.metrics, abs=1e-9)
    assert [row.num_objects for row in result.per_class] == [row.num_objects for row in expected.per_class]
    assert result.per_class[0].metrics == pytest.approx(expected.per_class[0].metrics, abs=1e-9)


def one_object(angle):
    return GroundTruth(
        categories=(Category(1, "a"),),
        image_ids=np.array([1]),
        image_sizes=np.array([[50, 50]]),
        image_index=np.array([0]),
        classes=np.array([0]),
        boxes=np.array([[20.0, 20, 20, 4, angle]]),
        areas=np.array([80.0]),
        iscrowd=np.array([False]),
    )


def detection(*box):
    index = torch.zeros(1, dtype=torch.int64)
    return {1: Detections(torch.tensor([box]), torch.ones(1), index, index)}


def test_only_the_angle_decides():
    found = detection(20.0, 20.0, 20.0, 4.0, 30.0)
    assert evaluation.RotatedEvaluator(Objects(one_object(-150)))(found).metrics["bbox/AP"] == pytest.approx(100)
    assert evaluation.RotatedEvaluator(Objects(one_object(60)))(found).metrics["bbox/AP50"] == 0


def test_straight_detections_are_refused():
    with pytest.raises(UserError, match="the detector's have 4"):
        evaluation.RotatedEvaluator(Objects(one_object(0)))(detection(10.0, 18.0, 30.0, 22.0))


def test_nothing_found_and_nothing_there():
    truth = one_object(0)
    assert evaluation.RotatedEvaluator(Objects(truth))({}).metrics["bbox/AP"] == 0
    empty = replace(truth, boxes=np.zeros((0, 5)), image_index=truth.image_index[:0], classes=truth.classes[:0])
    empty = replace(empty, areas=truth.areas[:0], iscrowd=truth.iscrowd[:0])
    assert evaluation.RotatedEvaluator(Objects(empty))({}).metrics["bbox/AP"] is None


def test_results_are_written_with_five_numbers():
    (result,) = coco_results(detection(20.0, 20.0, 20.0, 4.0, 30.0), [Category(6, "a")])
    assert result == {"image_id": 1, "category_id": 6, "bbox": [20, 20, 20, 4, 30], "score": 1.0}


def test_pictures_of_turned_boxes_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"four numbers.*these have 5.*hooks.pictures=null"):
        detected_objects(detection(20.0, 20.0, 20.0, 4.0, 30.0)[1], [Category(6, "a")], (50, 50))


def test_the_drawn_set_is_the_same_every_time_and_can_be_read(tmp_path):
    for folder in ("a", "b"):
        drawing.write_split(tmp_path / folder, "train", 3, 128, (0, 0))
    assert (tmp_path / "a/train.json").read_bytes() == (tmp_path / "b/train.json").read_bytes()
    dataset = data.RotatedCocoDataset(annotations=str(tmp_path / "a/train.json"), images=str(tmp_path / "a/images"))
    assert len(dataset) == 3
    assert all(len(dataset[i].boxes) for i in range(3))
