"""Data sets made of others, and which images an epoch has, on a data set of which only the objects are known."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.ground_truth import classes_by_image, images_by_class
from frcnn.data.image_samplers import ClassAwareSampler, RepeatFactorSampler
from frcnn.data.roles import Category, Dataset, GroundTruth, Sample
from frcnn.data.stream import batch_stream
from frcnn.data.subsets import ConcatDataset, FewShotDataset, KFoldDataset
from frcnn.errors import UserError
from frcnn.evaluation.coco import CocoEvaluator
from frcnn.evaluation.proposals import ProposalEvaluator
from frcnn.evaluation.voc import VOCEvaluator


class Listed(Dataset):
    """Image i holds the classes that `contents[i]` lists."""

    def __init__(self, contents, first_id=0, names=("a", "b", "c")):
        self.contents = contents
        self.first_id = first_id
        self.categories = tuple(Category(k + 1, name) for k, name in enumerate(names))

    def __len__(self):
        return len(self.contents)

    def __getitem__(self, index):
        classes = np.array(self.contents[index], np.int64)
        boxes = np.zeros((len(classes), 4), np.float32)
        return Sample(np.zeros((4, 6, 3), np.uint8), boxes, classes, self.first_id + index, (4, 6))

    @property
    def image_sizes(self):
        return np.array([[4, 6]] * len(self))

    def ground_truth(self):
        counts = [len(classes) for classes in self.contents]
        m = sum(counts)
        return GroundTruth(
            categories=self.categories,
            image_ids=np.arange(self.first_id, self.first_id + len(self)),
            image_sizes=self.image_sizes,
            image_index=np.repeat(np.arange(len(self)), counts),
            classes=np.array(list(itertools.chain(*self.contents)), np.int64),
            boxes=np.arange(4.0 * m).reshape(m, 4),
            areas=np.ones(m),
            iscrowd=np.zeros(m, bool),
            segmentation=lambda i: [[float(i + 100 * self.first_id)] * 6],
        )


def test_concatenated_sets_are_one_behind_the_other():
    both = ConcatDataset(datasets=[Listed([[0], [1, 2]]), Listed([[2], [], [0]], first_id=10)])
    assert len(both) == 5
    assert [both[i].image_id for i in range(5)] == [0, 1, 10, 11, 12]
    truth = both.ground_truth()
    assert truth.image_ids.tolist() == [0, 1, 10, 11, 12]
    assert truth.image_index.tolist() == [0, 1, 1, 2, 4]
    assert truth.classes.tolist() == [0, 1, 2, 2, 0]
    assert [truth.segmentation(i)[0][0] for i in range(5)] == [0, 1, 2, 1000, 1001]


def test_sets_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match=r"datasets.1 has the categories x, but datasets.0 has a, b, c"):
        _ = ConcatDataset(datasets=[Listed([[0]]), Listed([[0]], names=("x",))]).categories


def with_equal_ids():
    """Images 0, 1, 0, 1, 2. Class 0 is in the first four, class 1 in the second and the third, class 2 in the last."""
    return ConcatDataset(datasets=[Listed([[0], [0, 1]]), Listed([[0, 1], [0], [2]])])


def test_a_training_set_may_have_an_id_twice():
    both = with_equal_ids()
    assert [both[i].image_id for i in range(5)] == [0, 1, 0, 1, 2]
    truth = both.ground_truth()
    assert [images.tolist() for images in images_by_class(truth)] == [[0, 1, 2, 3], [1, 2], [4]]
    assert [classes.tolist() for classes in classes_by_image(truth)] == [[0], [0, 1], [0, 1], [0], [2]]


def test_images_of_equal_ids_are_sampled_by_their_place():
    """Of 5 images 4, 2 and 1 hold classes 0, 1 and 2: at threshold 0.8 their factors are 1, sqrt(0.8 / 0.4) and 2."""
    factors = RepeatFactorSampler(with_equal_ids(), threshold=0.8).factors
    assert factors == pytest.approx([1, 2**0.5, 2**0.5, 1, 2])
    assert [i.tolist() for i in ClassAwareSampler(with_equal_ids()).images_of_class] == [[0, 1, 2, 3], [1, 2], [4]]


def test_few_shots_of_images_of_equal_ids():
    """Two objects of class 1 are in images 1 and 2, which bring two of class 0; class 2 has one object, in image 4."""
    few = FewShotDataset(dataset=with_equal_ids(), shots=2)
    assert few.index.tolist() == [1, 2, 4]
    assert [few[i].image_id for i in range(3)] == [1, 0, 2]
    assert few.ground_truth().classes.tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("evaluator", [CocoEvaluator, ProposalEvaluator, VOCEvaluator])
def test_images_of_equal_ids_cannot_be_evaluated(evaluator):
    message = r"2 image ids are those of several images of the data set \(the first: 0\)"
    with pytest.raises(UserError, match=message):
        evaluator(with_equal_ids()).check(set())
    with pytest.raises(UserError, match=message):
        evaluator(with_equal_ids())({})
    evaluator(ConcatDataset(datasets=[Listed([[0]]), Listed([[0]], first_id=1)])).check(set())


@settings(max_examples=30, deadline=None)
@given(images=st.integers(2, 40), folds=st.integers(2, 7), seed=st.integers(0, 5))
def test_every_image_is_tested_in_one_fold_and_trained_on_in_the_others(images, folds, seed):
    dataset = Listed([[i % 3] for i in range(images)])
    if images < folds:
        with pytest.raises(UserError, match="cannot be divided"):
            len(KFoldDataset(dataset=dataset, num_folds=folds, fold=0, part="test"))
        return
    tested = []
    for fold in range(folds):
        test, train = (
            KFoldDataset(dataset=dataset, num_folds=folds, fold=fold, part=part, seed=seed)
            for part in ("test", "train")
        )
        assert sorted([*test.index.tolist(), *train.index.tolist()]) == list(range(images))
        assert abs(len(test) - images / folds) < 1
        assert test.ground_truth().image_ids.tolist() == [test[i].image_id for i in range(len(test))]
        tested += test.index.tolist()
    assert sorted(tested) == list(range(images))


def test_a_subset_has_the_objects_of_its_images():
    fold = KFoldDataset(dataset=Listed([[0], [1, 2], [], [2, 2]]), num_folds=2, fold=0, part="test", seed=1)
    truth = fold.ground_truth()
    assert [classes.tolist() for classes in classes_by_image(truth)] == [
        fold.dataset.contents[i] for i in fold.index.tolist()
    ]
    # object i of the whole set has the box 4 i, 4 i + 1, ... and the polygon of i's
    assert [4 * truth.segmentation(i)[0][0] for i in range(len(truth.classes))] == truth.boxes[:, 0].tolist()


def test_classes_of_images_and_images_of_classes_by_hand():
    truth = Listed([[2, 0, 2], [], [0]]).ground_truth()
    assert [classes.tolist() for classes in classes_by_image(truth)] == [[2, 0, 2], [], [0]]
    assert [images.tolist() for images in images_by_class(truth)] == [[0, 2], [], [0]]
    crowd = dataclasses.replace(truth, iscrowd=np.array([True, False, True, False]))  # both objects of class 2
    assert [classes.tolist() for classes in classes_by_image(crowd)] == [[0], [], [0]]
    assert [images.tolist() for images in images_by_class(crowd)] == [[0, 2], [], []]
    nothing = Listed([]).ground_truth()
    assert classes_by_image(nothing) == []
    assert [len(images) for images in images_by_class(nothing)] == [0, 0, 0]


def test_few_shots_give_every_class_enough():
    contents = [[0]] * 30 + [[1, 0]] * 10 + [[2]] * 2
    few = FewShotDataset(dataset=Listed(contents), shots=3, seed=0)
    counts = np.bincount(few.ground_truth().classes, minlength=3)
    assert counts[2] == 2  # all there are
    assert counts[1] == 3
    assert counts[0] == 3  # they came with class 1
    assert len(few) == 5
    assert FewShotDataset(dataset=Listed(contents), shots=3, seed=0).index.tolist() == few.index.tolist()
    assert FewShotDataset(dataset=Listed(contents), shots=3, seed=1).index.tolist() != few.index.tolist()


def test_repeat_factors_by_hand():
    """Class 0 in all 4 images, class 1 in one of them: with threshold 1, sqrt(1 / 0.25) = 2."""
    sampler = RepeatFactorSampler(Listed([[0], [0], [0, 1], [0]]), threshold=1.0)
    assert sampler.factors.tolist() == [1, 1, 2, 1]
    assert sampler.epoch_size == 5
    assert sorted(sampler(np.random.default_rng(0)).tolist()) == [0, 1, 2, 2, 3]


def test_a_fraction_of_a_factor_is_a_probability():
    """Class 1 in one of 9 images: sqrt(0.25 / (1/9)) = 1.5."""
    sampler = RepeatFactorSampler(Listed([[0]] * 8 + [[1]]), threshold=0.25)
    assert sampler.factors[-1] == pytest.approx(1.5)
    times = [int((sampler(np.random.default_rng(seed)) == 8).sum()) for seed in range(400)]
    assert set(times) == {1, 2}
    assert np.mean(times) == pytest.approx(1.5, abs=0.1)


def test_class_aware_sampling_draws_each_class_as_often():
    sampler = ClassAwareSampler(Listed([[0]] * 97 + [[1], [2], []]))
    drawn = Counter()
    for seed in range(30):
        drawn.update(sampler(np.random.default_rng(seed)).tolist())
    assert drawn[99] == 0
    assert drawn[97] / 3000 == pytest.approx(1 / 3, abs=0.03)
    with pytest.raises(UserError, match="no class to draw"):
        ClassAwareSampler(Listed([[], []]))(np.random.default_rng(0))


def test_batches_of_a_sampler_go_on_where_they_stopped():
    sampler = RepeatFactorSampler(Listed([[0]] * 8 + [[1]]), threshold=0.25)
    groups = np.zeros(9, np.int64)
    whole = list(itertools.islice(batch_stream(groups, 2, seed=0, epoch_order=sampler), 12))
    rest = list(itertools.islice(batch_stream(groups, 2, seed=0, start_batch=5, epoch_order=sampler), 7))
    assert rest == whole[5:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KFoldDataset(dataset=Listed([]), fold=5, part="test"), r"fold must be in 0..4, got 5"),
        (lambda: KFoldDataset(dataset=Listed([]), num_folds=1, fold=0, part="test"), "num_folds must be at least 2"),
        (lambda: FewShotDataset(dataset=Listed([]), shots=0), "shots must be at least 1"),
        (lambda: RepeatFactorSampler(Listed([]), threshold=0), r"threshold must be in \(0, 1\], got 0"),
        (lambda: ConcatDataset(datasets=[]), "at least one data set"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
