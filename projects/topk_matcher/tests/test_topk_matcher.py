from pathlib import Path

import pytest
import torch

from frcnn.config import import_file
from frcnn.structures import Candidates, Targets

FILE = Path(__file__).parent.parent / "topk_matcher.py"


@pytest.fixture(scope="module")
def matcher_class():
    return import_file(FILE).TopKMatcher


def test_each_object_gets_its_k_best_candidates(matcher_class):
    candidates = Candidates(
        [torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [0, 0, 10, 2], [50, 50, 60, 60]])]
    )
    targets = Targets(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([2]))
    matches = matcher_class(k=2, low_threshold=0.3)(candidates, targets)
    # IoU with the object: 1, 0.8, 0.4, 0.2, 0
    assert matches.labels.tolist() == [1, 1, -1, 0, 0]
    assert matches.matched_idxs.tolist() == [0, 0, -1, -2, -2]


def test_a_candidate_that_touches_nothing_is_never_positive(matcher_class):
    candidates = Candidates([torch.tensor([[50.0, 50, 60, 60]])])
    matches = matcher_class(k=5)(candidates, Targets(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0])))
    assert matches.labels.tolist() == [0]


def test_an_image_without_objects_is_all_negative(matcher_class):
    candidates = Candidates([torch.rand(4, 4)])
    matches = matcher_class()(candidates, Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    assert matches.labels.tolist() == [0, 0, 0, 0]
