"""AP of masks: hand-checkable cases, both backends against each other, and the published results of 100 images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from frcnn.data.coco import CocoDataset
from frcnn.data.roles import Category, GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.coco import CocoEvaluator, _far_behind
from frcnn.structures import Detections, EncodedMasks

BACKENDS = ["hotcoco", "pycocotools"]
CAT, DOG = 0, 1
SIZE = (480, 640)
SQUARE = (100, 100, 150, 150)


def polygon(x1, y1, x2, y2) -> list[list[float]]:
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def rectangle(x1, y1, x2, y2, size=SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8, order="F")
    mask[y1:y2, x1:x2] = 1
    return mask


def encoded(*masks: np.ndarray, size=SIZE) -> EncodedMasks:
    return EncodedMasks(size, tuple(coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks))


def with_segmentation(dataset, segmentations):
    dataset.truth = replace(dataset.truth, segmentation=lambda i: segmentations[i])
    return dataset


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mask_decides_and_not_the_box(dataset_of, found, backend):
    """The box is exact and the mask covers 3/4 of the object's: found at the six thresholds 0.50 to 0.75."""
    dataset = with_segmentation(dataset_of([(1, CAT, SQUARE)], image_ids=[1]), [polygon(*SQUARE)])
    detections = replace(found((CAT, 0.9, SQUARE)), encoded_masks=encoded(rectangle(100, 100, 150, 138)))
    result = CocoEvaluator(dataset, tasks=("bbox", "segm"), backend=backend)({1: detections})
    assert result.metrics["bbox/AP"] == pytest.approx(100)
    assert result.metrics["segm/AP"] == pytest.approx(60)  # 38 / 50 = 0.76
    assert result.metrics["segm/AP75"] == pytest.approx(100)
    assert [(row.task, row.metrics["AP"]) for row in result.per_class if row.name == "cat"] == [
        ("bbox", pytest.approx(100)),
        ("segm", pytest.approx(60)),
    ]
    assert "\nsegm\nclass" in result.table()


def test_masks_that_are_not_pasted_yet_are_pasted(dataset_of, found):
    """A mask of ones in the frame of its box fills it."""
    dataset = with_segmentation(dataset_of([(1, CAT, SQUARE)], image_ids=[1]), [polygon(*SQUARE)])
    detections = replace(found((CAT, 0.9, SQUARE)), masks=torch.ones(1, 28, 28))
    assert CocoEvaluator(dataset, tasks=("segm",))({1: detections}).metrics["segm/AP"] == pytest.approx(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_in_a_crowd_are_neither_right_nor_wrong(dataset_of, found, backend):
    """The crowd is uncompressed run lengths, column by column, as COCO's files have it: the right half of a 4 x 8 image."""
    objects = [(1, CAT, (4, 0, 8, 4), "crowd"), (1, CAT, (0, 0, 2, 4))]
    dataset = dataset_of(objects, image_ids=[1], size=(4, 8))
    dataset = with_segmentation(dataset, [{"size": [4, 8], "counts": [16, 16]}, polygon(0, 0, 2, 4)])
    masks = encoded(rectangle(5, 0, 7, 2, (4, 8)), rectangle(0, 0, 2, 4, (4, 8)), size=(4, 8))
    detections = replace(found((CAT, 0.95, (5, 0, 7, 2)), (CAT, 0.9, (0, 0, 2, 4))), encoded_masks=masks)
    result = CocoEvaluator(dataset, tasks=("segm",), backend=backend)({1: detections})
    assert result.metrics["segm/AP"] == pytest.approx(100)


def test_nothing_found_is_zero(dataset_of, found):
    dataset = with_segmentation(dataset_of([(1, CAT, SQUARE)]), [polygon(*SQUARE)])
    result = CocoEvaluator(dataset, tasks=("segm",))({1: found(), 2: found()})
    assert result.metrics["segm/AP"] == 0
    assert any("no detections" in note for note in result.notes)


def test_right_boxes_with_wrong_masks_are_told_apart(dataset_of, found):
    dataset = with_segmentation(dataset_of([(1, CAT, SQUARE)], image_ids=[1]), [polygon(*SQUARE)])
    detections = replace(found((CAT, 0.9, SQUARE)), encoded_masks=encoded(rectangle(300, 300, 350, 350)))
    (note,) = CocoEvaluator(dataset, tasks=("bbox", "segm"))({1: detections}).notes
    assert note.startswith("segm/AP is almost 0 and bbox/AP is 100.0: the objects are found, but their masks are not")


def test_masks_are_not_told_to_be_behind_boxes_that_are_hardly_found():
    metrics = {"bbox/AP": 0.2, "segm/AP": 0.0}
    assert _far_behind(metrics, ("bbox", "segm")) == []
    assert len(_far_behind({**metrics, "bbox/AP": 5.0}, ("bbox", "segm"))) == 1


def test_what_is_missing_is_said_before_anything_runs(dataset_of, found):
    dataset = dataset_of([(1, CAT, SQUARE), (2, DOG, SQUARE)])
    evaluator = CocoEvaluator(dataset, tasks=("bbox", "segm"))
    with pytest.raises(UserError, match=r"asks for segm, but the model gives no masks: add a branch .*MaskBranch"):
        evaluator.check(())
    with pytest.raises(UserError, match="the data set has no segmentation; leave segm out"):
        evaluator.check(("masks",))
    evaluator = CocoEvaluator(with_segmentation(dataset, [polygon(*SQUARE), None]), tasks=("segm",))
    with pytest.raises(
        UserError, match=r"1 of the 2 objects have no segmentation \(the first: dog in image 2, box 100, "
    ):
        evaluator.check(("masks",))
    evaluator = CocoEvaluator(with_segmentation(dataset, [polygon(*SQUARE)] * 2), tasks=("segm",))
    evaluator.check(("masks", "keypoints"))
    with pytest.raises(UserError, match="the detections have none; add a mask branch"):
        evaluator({1: found((CAT, 0.9, SQUARE))})


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [4, 8], "counts": [16, 16]}, "its size is"),
        ({"counts": [1]}, "size"),
        ([["a", "b"]], "no list of numbers"),
        ([[1, 2, 3, 4]], "has 4 numbers"),
    ],
)
def test_a_segmentation_that_cannot_be_read_is_named(dataset_of, segmentation, reason):
    dataset = with_segmentation(dataset_of([(1, CAT, SQUARE)]), [segmentation])
    with pytest.raises(UserError, match=rf"the segmentation of cat in image 1, box 100, 100, 150, 150 .*{reason}"):
        CocoEvaluator(dataset, tasks=("segm",)).check(("masks",))


def test_tasks_are_checked(dataset_of):
    for tasks in ((), ("segm", "segm"), ("mask",)):
        with pytest.raises(ValueError, match="tasks must be one or more of bbox, segm, keypoints, each once"):
            CocoEvaluator(dataset_of([]), tasks=tasks)
    names = CocoEvaluator(dataset_of([]), tasks=("segm", "keypoints")).metric_names
    assert names[0] == "segm/AP" and "keypoints/APl" in names and "bbox/AP" not in names


@st.composite
def problems(draw):
    """Objects as polygons and run lengths, crowds, equal scores, empty images; masks moved by some pixels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, num_classes, size = draw(st.integers(1, 4)), draw(st.integers(1, 3)), (120, 160)
    m, d = draw(st.integers(0, 12)), draw(st.integers(0, 25))

    def boxes(count: int) -> np.ndarray:
        corner, side = rng.integers(0, 80, (count, 2)), rng.integers(1, 70, (count, 2))
        return np.concatenate([corner, np.minimum(corner + side, size[::-1])], axis=1)

    gt_boxes, crowd = boxes(m), rng.random(m) < draw(st.sampled_from([0.0, 0.3]))
    segmentations = []
    for i, box in enumerate(gt_boxes.tolist()):
        if crowd[i] or rng.random() < 0.3:
            mask = rectangle(*box, size)
            runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.ravel("F"), [2]])) != 0)).tolist()
            segmentations.append({"size": list(size), "counts": [0, *runs] if mask[0, 0] else runs})
        else:
            segmentations.append([(np.array(polygon(*box)[0]) + rng.uniform(-2, 2, 8)).clip(0).tolist()])
    truth = GroundTruth(
        categories=[Category(k * 3, f"class {k}") for k in range(num_classes)],
        image_ids=rng.permutation(n * 2)[:n],
        image_sizes=np.tile(size, (n, 1)),
        image_index=np.sort(rng.integers(0, n, m)),
        classes=rng.integers(0, num_classes, m),
        boxes=gt_boxes.astype(float),
        areas=rng.uniform(1, 12000, m),
        iscrowd=crowd,
        segmentation=lambda i: segmentations[i],
    )
    found_boxes = boxes(d)
    if m:
        near = np.clip(gt_boxes[rng.integers(0, m, d)] + rng.integers(-4, 4, (d, 4)), 0, [160, 120, 160, 120])
        found_boxes = np.where(rng.random((d, 1)) < 0.7, near, found_boxes)
    scores = np.round(rng.random(d), draw(st.sampled_from([1, 8])))
    image, classes, detections = rng.integers(0, n, d), rng.integers(0, num_classes, d), {}
    for i in range(n):
        mine = np.flatnonzero(image == i)
        detections[int(truth.image_ids[i])] = Detections(
            boxes=torch.from_numpy(found_boxes[mine]).float(),
            scores=torch.from_numpy(scores[mine]).float(),
            classes=torch.from_numpy(classes[mine]),
            index=torch.arange(len(mine)),
            encoded_masks=encoded(*(rectangle(*box, size) for box in found_boxes[mine].tolist()), size=size),
        )
    return truth, detections


@settings(max_examples=40, deadline=None)
@given(problems())
def test_both_backends_give_the_same_numbers_to_the_last_digit(in_memory, problem):
    truth, detections = problem
    fast, reference = (
        CocoEvaluator(in_memory(truth), tasks=("segm", "bbox"), backend=backend)(detections) for backend in BACKENDS
    )
    assert fast == reference


@pytest.fixture(scope="module")
def coco_100(coco_val2014_100):
    dataset = CocoDataset(
        annotations=str(coco_val2014_100 / "instances_val2014_100.json"), images=str(coco_val2014_100)
    )
    return dataset, dataset.ground_truth()


def test_published_results_of_masks_of_100_coco_images(coco_val2014_100, coco_100):
    """The results file that COCO's tools come with, and what pycocotools prints for it, read by itself."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset, truth = coco_100
    path = coco_val2014_100 / "instances_val2014_fakesegm100_results.json"
    classes = {category.id: k for k, category in enumerate(truth.categories)}
    sizes = dict(zip(truth.image_ids.tolist(), truth.image_sizes.tolist(), strict=True))
    results, detections = json.loads(path.read_text()), {}
    for image_id in truth.image_ids.tolist():
        mine = [result for result in results if result["image_id"] == image_id]
        detections[image_id] = Detections(
            boxes=torch.zeros(len(mine), 4),
            scores=torch.tensor([result["score"] for result in mine], dtype=torch.float64),
            classes=torch.tensor([classes[result["category_id"]] for result in mine], dtype=torch.int64),
            index=torch.arange(len(mine)),
            encoded_masks=EncodedMasks(
                tuple(sizes[image_id]), tuple(result["segmentation"]["counts"].encode() for result in mine)
            ),
        )
    fast, reference = (CocoEvaluator(dataset, tasks=("segm",), backend=backend)(detections) for backend in BACKENDS)
    assert fast == reference
    published = [32.0, 56.2, 29.9, 38.7, 31.0, 32.7, 26.8, 41.5, 41.7, 46.9, 37.7, 38.1]
    assert [round(value, 1) for value in fast.metrics.values()] == published
    coco = COCO(str(coco_val2014_100 / "instances_val2014_100.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(path)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    np.testing.assert_array_equal(list(fast.metrics.values()), 100 * evaluation.stats)


def test_moved_copies_of_the_objects_of_100_coco_images(coco_100):
    """Polygons and crowds as they are, detections a few pixels beside them: AP is high, and equal in both backends."""
    dataset, truth = coco_100
    rng = np.random.default_rng(0)
    masks = CocoEvaluator(dataset, tasks=("segm",))._masks_of(truth)
    detections = {}
    for i, image_id in enumerate(truth.image_ids.tolist()):
        objects = np.flatnonzero((truth.image_index == i) & ~truth.iscrowd)
        moved = [np.roll(coco_mask.decode(masks[k]), rng.integers(-3, 4, 2), axis=(0, 1)) for k in objects]
        detections[image_id] = Detections(
            boxes=torch.from_numpy(truth.boxes[objects]),
            scores=torch.from_numpy(rng.random(len(objects))),
            classes=torch.from_numpy(truth.classes[objects]),
            index=torch.arange(len(objects)),
            encoded_masks=encoded(*moved, size=tuple(truth.image_sizes[i].tolist())),
        )
    fast, reference = (
        CocoEvaluator(dataset, tasks=("bbox", "segm"), backend=backend)(detections) for backend in BACKENDS
    )
    assert fast == reference
    assert fast.metrics["bbox/AP"] > 99
    assert 40 < fast.metrics["segm/AP"] < 95
