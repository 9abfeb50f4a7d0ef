"""An evaluator that cannot be served is refused before anything runs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from frcnn.engine.validation import TestSet, check_evaluators, evaluate
from frcnn.errors import UserError
from frcnn.evaluation.coco import CocoEvaluator
from frcnn.evaluation.proposals import ProposalEvaluator
from frcnn.evaluation.voc import VOCEvaluator
from frcnn.modeling.roles import Detector, ROIBranch
from frcnn.modeling.tta import AugmentedDetector, TestTimeAugmentation


class Masks(ROIBranch):
    detection_fields = ("masks",)


class Proposals(Detector):
    """One that finds proposals alone."""

    tells_classes_apart = False


class Boxes(Detector):
    """A detector that must not be asked for anything."""

    def __init__(self, *branches: ROIBranch) -> None:
        super().__init__(2)
        self.branches = nn.ModuleList(branches)


def masks_asked_for() -> TestSet:
    ground_truth = SimpleNamespace(image_ids=np.arange(2), segmentation=None, keypoints=None)
    dataset = SimpleNamespace(ground_truth=lambda: ground_truth)
    return TestSet("val", dataset, [], CocoEvaluator(dataset, tasks=("segm",)))


def test_a_detector_knows_what_its_branches_give():
    assert Boxes().detection_fields == frozenset()
    assert Boxes(Masks()).detection_fields == {"masks"}


@pytest.mark.parametrize("evaluator", [CocoEvaluator, VOCEvaluator])
def test_proposals_alone_are_not_judged_by_class(evaluator):
    dataset = SimpleNamespace(ground_truth=lambda: SimpleNamespace(image_ids=np.arange(2)))
    for model in (Proposals(3), AugmentedDetector(Proposals(3), TestTimeAugmentation(sizes=(64,)))):
        with pytest.raises(UserError, match=f"{evaluator.__name__} compares classes.*evaluator.name=ProposalEvaluator"):
            check_evaluators(model, [TestSet("val", dataset, [], evaluator(dataset))])
        check_evaluators(model, [TestSet("val", dataset, [], ProposalEvaluator(dataset))])
    check_evaluators(Boxes(), [TestSet("val", dataset, [], evaluator(dataset))])


def test_masks_asked_of_a_model_without_them_are_refused_before_inference():
    with pytest.raises(UserError, match="asks for segm, but the model gives no masks"):
        evaluate(Boxes(), [masks_asked_for()], torch.device("cpu"), "off")
    with pytest.raises(UserError, match="the data set has no segmentation"):
        check_evaluators(Boxes(Masks()), [masks_asked_for()])
    check_evaluators(nn.Identity(), [masks_asked_for()])  # of what is no Detector nobody knows what it gives
