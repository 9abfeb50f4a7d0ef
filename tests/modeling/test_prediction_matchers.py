"""Matchers that weigh what the model predicts."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.errors import UserError
from frcnn.modeling.matchers import HungarianMatcher, SimOTAMatcher, TaskAlignedMatcher
from frcnn.modeling.matchers.simota import EPS, ClassificationCost
from frcnn.ops.boxes import box_giou, box_iou
from frcnn.structures import Candidates, Predictions, Targets

GT = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]
MATCHERS = [SimOTAMatcher, TaskAlignedMatcher, HungarianMatcher]


def as_boxes(boxes):
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def targets(*boxes, classes=None):
    return Targets(as_boxes(boxes), torch.tensor(classes or [0] * len(boxes), dtype=torch.int64))


def candidates(boxes, scores=None, predicted=None, size=(100, 100)):
    boxes = as_boxes(boxes)
    predicted = boxes if predicted is None else as_boxes(predicted)
    scores = torch.full((len(boxes), 1), 0.5) if scores is None else torch.tensor(scores).reshape(len(boxes), -1)
    return Candidates([boxes], lambda: Predictions(scores.logit(), predicted, scores), size)


def test_the_classification_cost_by_hand():
    cost = ClassificationCost(torch.tensor([[0.5, 0.25], [0.9, 0.1]])).of(torch.tensor([0, 1]))
    expected = [
        [-math.log(0.5) - math.log(0.75), -math.log(0.9) - math.log(0.9)],  # both as an object of class 0
        [-math.log(0.5) - math.log(0.25), -math.log(0.1) - math.log(0.1)],  # and of class 1
    ]
    torch.testing.assert_close(cost, torch.tensor(expected))


def test_simota_takes_as_many_as_the_overlaps_sum_to():
    # IoU 1, 0.8 and 0 sum to 1.8: one positive.
    matches = SimOTAMatcher()(candidates([GT, [0, 0, 10, 8], FAR]), targets(GT))
    assert matches.labels.tolist() == [1, 0, 0]
    # IoU 1, 0.8 and 0.9 sum to 2.7: two.
    matches = SimOTAMatcher()(candidates([GT, [0, 0, 10, 8], [0, 0, 10, 9]]), targets(GT))
    assert matches.labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(matches.quality, torch.tensor([1.0, 0.0, 0.9]))
    assert SimOTAMatcher(max_positives=1)(candidates([GT, GT]), targets(GT)).labels.sum() == 1


def test_simota_weighs_score_against_overlap():
    # -log 0.9 + 3 * -log 0.8 = 0.77 is less than -log 0.3 + 3 * -log 0.9 = 1.52, but not without the class.
    two = candidates([[0, 0, 10, 8], [0, 0, 10, 9]], scores=[0.9, 0.3])
    assert SimOTAMatcher(max_positives=1)(two, targets(GT)).labels.tolist() == [1, 0]
    assert SimOTAMatcher(max_positives=1, class_weight=0.0)(two, targets(GT)).labels.tolist() == [0, 1]


def test_simota_prefers_candidates_near_the_centre():
    # Each predicts a box; the first one's own centre is 6 px from that of the object, more than half its side of 10.
    placed = candidates([[6, 0, 16, 10], [2, 0, 12, 10]], predicted=[GT, [0, 0, 10, 5]])
    assert SimOTAMatcher()(placed, targets(GT)).labels.tolist() == [0, 1]
    assert SimOTAMatcher(center_radius=0.7)(placed, targets(GT)).labels.tolist() == [0, 1]  # centred on x 11, outside
    assert SimOTAMatcher()(candidates([[6, 0, 16, 10]], predicted=[GT]), targets(GT)).labels.tolist() == [1]


def test_simota_gives_a_candidate_to_the_cheaper_of_two_claims_and_nothing_to_the_unrelated():
    # The candidate is centred in both; it overlaps the second by 1 and the first by 100/120.
    matches = SimOTAMatcher()(candidates([GT]), targets([0, 0, 12, 10], GT, FAR))
    assert matches.labels.tolist() == [1]
    assert matches.gt_index.tolist() == [1]
    assert SimOTAMatcher()(candidates([GT]), targets(FAR)).labels.tolist() == [0]


def test_task_alignment_by_hand():
    # score x IoU^6: 0.2 x 1 = 0.2, 0.9 x 0.8^6 = 0.24, 0.9 x 0.5^6 = 0.01; the last is centred outside.
    four = candidates([GT, [0, 0, 10, 8], [0, 0, 10, 5], [9, 9, 19, 19]], scores=[0.2, 0.9, 0.9, 1.0])
    assert TaskAlignedMatcher(max_positives=1)(four, targets(GT)).labels.tolist() == [0, 1, 0, 0]
    assert TaskAlignedMatcher(max_positives=2)(four, targets(GT)).labels.tolist() == [1, 1, 0, 0]
    matches = TaskAlignedMatcher()(four, targets(GT))
    assert matches.labels.tolist() == [1, 1, 1, 0]
    torch.testing.assert_close(matches.quality, torch.tensor([1.0, 0.8, 0.5, 0.0]))
    assert TaskAlignedMatcher(max_positives=1, beta=1.0)(four, targets(GT)).labels.tolist() == [0, 1, 0, 0]


def test_task_alignment_reads_the_score_of_the_class_and_resolves_by_overlap():
    scores = [[0.9, 0.1], [0.1, 0.9]]
    same_place = candidates([GT, GT], scores=scores)
    for wanted, expected in ((0, [1, 0]), (1, [0, 1])):
        matches = TaskAlignedMatcher(max_positives=1)(same_place, targets(GT, classes=[wanted]))
        assert matches.labels.tolist() == expected
    # Both claim the only candidate: 0.9 x (100/120)^6 = 0.30 is more than 0.1 x 1, but overlaps less.
    both = targets([0, 0, 12, 10], GT, classes=[0, 1])
    assert TaskAlignedMatcher()(candidates([GT], scores=scores[:1]), both).gt_index.tolist() == [1]


def test_hungarian_cost_by_hand():
    # The box is 10 of 100 px too far right in x1 and x2; IoU 0, and the box around both is their union.
    one = candidates([[10, 0, 20, 10]], scores=[0.75], size=(50, 100))
    cost = HungarianMatcher().cost(one, one.predictions(), targets(GT))
    torch.testing.assert_close(cost, torch.tensor([[-0.75 + 5 * 0.2 - 2 * 0.0]]))
    lower = candidates([[0, 10, 10, 20]], scores=[0.75], size=(50, 100))  # 10 of 50 px too low
    cost = HungarianMatcher().cost(lower, lower.predictions(), targets(GT))
    torch.testing.assert_close(cost, torch.tensor([[-0.75 + 5 * 0.4 - 2 * 0.0]]))


def test_hungarian_finds_the_best_sum_and_not_the_best_first():
    # By L1 alone: the first object prefers candidate 0 (2 px against 3), the second too (0 against 9).
    matcher = HungarianMatcher(class_weight=0.0, giou_weight=0.0)
    pair = candidates([[2, 0, 12, 10], [-3, 0, 7, 10]])
    matches = matcher(pair, targets(GT, [2, 0, 12, 10]))
    assert matches.labels.tolist() == [1, 1]
    assert matches.gt_index.tolist() == [1, 0]
    torch.testing.assert_close(matches.quality, torch.tensor([1.0, 70 / 130]))


def test_hungarian_leaves_over_what_there_are_too_many_of():
    assert HungarianMatcher()(candidates([FAR, GT, FAR]), targets(GT)).labels.tolist() == [0, 1, 0]
    matches = HungarianMatcher()(candidates([GT]), targets(FAR, GT))
    assert matches.labels.tolist() == [1]
    assert matches.gt_index.tolist() == [1]


def test_hungarian_says_when_predictions_are_not_numbers():
    broken = candidates([GT, GT], predicted=[GT, [math.nan] * 4])
    with pytest.raises(UserError, match=r"1 of 2 costs are NaN or infinite.*lower the learning rate"):
        HungarianMatcher()(broken, targets(GT))


@pytest.mark.parametrize("matcher", MATCHERS)
def test_nothing_to_match(matcher):
    no_object = matcher()(candidates([GT, FAR]), targets())
    assert no_object.labels.tolist() == no_object.gt_index.tolist() == [0, 0]
    assert no_object.quality.tolist() == [0, 0]
    no_candidate = matcher()(candidates([]), targets(GT))
    assert len(no_candidate.labels) == len(no_candidate.gt_index) == len(no_candidate.quality) == 0


@pytest.mark.parametrize("matcher", MATCHERS)
def test_predictions_are_needed(matcher):
    with pytest.raises(ValueError, match="candidates come without predictions"):
        matcher()(Candidates([as_boxes([GT])]), targets(GT))


@pytest.mark.parametrize("matcher", MATCHERS)
def test_float32_inside_autocast(matcher):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matches = matcher()(candidates([[1001, 1001, 1002, 1002], FAR]), targets([1001, 1001, 1002, 1002]))
    assert matches.labels.tolist() == [1, 0]
    assert matches.quality.dtype == torch.float32
    assert matches.quality[0] == 1


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("kind", ["standard", "cascade"])
def test_they_work_in_the_rpn_and_in_the_roi_heads(matcher, kind, tiny_detector, tiny_batch):
    detector = tiny_detector(kind, "random").train()
    detector.proposal_generator.matcher = matcher()
    if kind == "standard":
        detector.roi_heads.matcher = matcher()
    else:
        detector.roi_heads.matcher[1] = matcher()
    losses = detector(tiny_batch).losses
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    assert all(value.isfinite() for value in losses.values())
    assert losses["rpn/num_positive"] > 0


@pytest.mark.parametrize(
    ("component", "options", "message"),
    [
        (SimOTAMatcher, {"iou_weight": -1.0}, "iou_weight must be at least 0, got 1.0 and -1.0"),
        (SimOTAMatcher, {"center_radius": 0.0}, "center_radius must be above 0, got 0.0"),
        (SimOTAMatcher, {"max_positives": 0}, "max_positives must be at least 1, got 0"),
        (TaskAlignedMatcher, {"beta": -6.0}, "alpha and beta must be at least 0, got 1.0 and -6.0"),
        (TaskAlignedMatcher, {"max_positives": 0}, "max_positives must be at least 1, got 0"),
        (HungarianMatcher, {"l1_weight": -5.0}, "l1_weight must be at least 0, got -5.0"),
        (HungarianMatcher, {"class_weight": 0.0, "l1_weight": 0.0, "giou_weight": 0.0}, "are all 0"),
    ],
)
def test_options_are_checked(component, options, message):
    with pytest.raises(ValueError, match=message):
        component(**options)


# Whole pixels on a small canvas make overlaps and misses both likely; the scores differ, so that costs do not tie.
box = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(1, 6)).map(
    lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3])
)
some_boxes = st.lists(box, min_size=1, max_size=8)


def scored(boxes, seed):
    return candidates(boxes, torch.rand(len(boxes), generator=torch.Generator().manual_seed(seed)).tolist())


def naive_simota(boxes, gt_boxes, scores, radius=0.5, top=10):
    """The definition, one pair at a time."""
    claims = {}
    for g, (x1, y1, x2, y2) in enumerate(gt_boxes):
        iou = box_iou(as_boxes([gt_boxes[g]]), as_boxes(boxes))[0]
        pairs, overlaps = [], iou.tolist()
        for n, (left, top_edge, right, bottom) in enumerate(boxes):
            x, y = (left + right) / 2, (top_edge + bottom) / 2
            side = math.sqrt((right - left) * (bottom - top_edge))
            near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < radius * side
            close = near and x1 < x < x2 and y1 < y < y2
            if close or overlaps[n] > 0:
                cost = -math.log(max(scores[n], EPS)) - 3 * math.log(overlaps[n] + EPS)
                pairs.append((not close, cost, n))
        count = max(1, int(iou.topk(min(top, len(boxes))).values.sum()))
        for far, cost, n in sorted(pairs)[:count]:
            claims[n] = min(claims.get(n, (True, math.inf, g)), (far, cost, g))
    return [int(n in claims) for n in range(len(boxes))], [
        claims[n][2] if n in claims else 0 for n in range(len(boxes))
    ]


@given(some_boxes, some_boxes, st.integers(0, 10**6))
@settings(deadline=None)
def test_simota_is_its_definition_whatever_the_chunks(boxes, gts, seed):
    scores = scored(boxes, seed)
    gts = list(dict.fromkeys(gts))  # equal ground truths cost the same to the last bit or nearly
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frcnn.modeling.matchers.claims.CLAIM_CHUNK_ELEMENTS", 20)
        matches = SimOTAMatcher()(scores, targets(*gts))
    labels, gt_index = naive_simota(boxes, gts, scores.predictions().scores[:, 0].tolist())
    assert matches.labels.tolist() == labels
    assert matches.gt_index.tolist() == gt_index


@given(some_boxes, some_boxes, st.integers(0, 10**6))
@settings(deadline=None)
def test_task_alignment_never_claims_more_than_its_share(boxes, gts, seed):
    matches = TaskAlignedMatcher(max_positives=2)(scored(boxes, seed), targets(*gts))
    claimed = torch.bincount(matches.gt_index[matches.labels == 1], minlength=len(gts))
    assert claimed.max() <= 2
    overlap = box_iou(as_boxes(gts), as_boxes(boxes)).gather(0, matches.gt_index[None])[0]
    torch.testing.assert_close(matches.quality, overlap * (matches.labels == 1))


@given(st.lists(box, min_size=1, max_size=4), st.lists(box, min_size=1, max_size=4), st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_hungarian_is_the_cheapest_of_all_assignments(boxes, gts, seed):
    scores, wanted = scored(boxes, seed), targets(*gts)
    cost = HungarianMatcher().cost(scores, scores.predictions(), wanted)
    matches = HungarianMatcher()(scores, wanted)
    positive = torch.nonzero(matches.labels).squeeze(1)
    assert len(positive) == len(set(matches.gt_index[positive].tolist())) == min(len(boxes), len(gts))
    table = cost if len(gts) <= len(boxes) else cost.T
    orders = itertools.permutations(range(table.shape[1]), table.shape[0])
    cheapest = min(sum(table[row, column].item() for row, column in enumerate(order)) for order in orders)
    assert cost[matches.gt_index[positive], positive].sum().item() == pytest.approx(cheapest, abs=1e-4)


@given(some_boxes, some_boxes)
@settings(deadline=None)
def test_giou_is_torchvisions(boxes, gts):
    from torchvision.ops import generalized_box_iou

    expected = generalized_box_iou(as_boxes(gts), as_boxes(boxes))
    torch.testing.assert_close(box_giou(as_boxes(gts), as_boxes(boxes)), expected, rtol=1e-4, atol=1e-5)


def test_giou_of_boxes_without_area_is_finite():
    point = as_boxes([[5, 5, 5, 5]])
    assert box_giou(point, point).tolist() == [[0.0]]
    assert box_giou(point, as_boxes([[7, 5, 7, 9]])).item() == -1.0
