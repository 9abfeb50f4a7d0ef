import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.modeling.matchers import ATSSMatcher, IoUMatcher
from frcnn.ops.boxes import box_iou
from frcnn.structures import Candidates, Targets


def targets(*boxes):
    return Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))


def candidates(*boxes_per_level):
    return Candidates([torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) for boxes in boxes_per_level])


RPN_MATCHER = {"high_threshold": 0.7, "low_threshold": 0.3}


def test_three_labels_by_hand():
    # IoU with the ground truth [0, 0, 10, 10]: 1, 5/10, 2/10, 0
    four = candidates([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [20, 0, 30, 10]])
    matches = IoUMatcher(**RPN_MATCHER)(four, targets([0, 0, 10, 10]))
    assert matches.labels.tolist() == [1, -1, 0, 0]
    assert matches.matched_idxs.tolist() == [0, -1, -2, -2]
    torch.testing.assert_close(matches.quality, torch.tensor([1.0, 0.5, 0.2, 0.0]))


def test_thresholds_themselves_count_upwards():
    halves = candidates([[0, 0, 10, 5], [0, 0, 10, 7.5]])
    matches = IoUMatcher(high_threshold=0.75, low_threshold=0.5)(halves, targets([0, 0, 10, 10]))
    assert matches.labels.tolist() == [-1, 1]


def test_each_candidate_goes_to_its_best_ground_truth_and_ties_to_the_first():
    two = targets([0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 8])
    matches = IoUMatcher(**RPN_MATCHER)(candidates([[0, 0, 10, 10], [0, 0, 10, 8]]), two)
    assert matches.gt_index.tolist() == [0, 1]
    assert matches.labels.tolist() == [1, 1]


def test_low_quality_matches_take_all_that_tie():
    # Both of the first two have IoU 0.5 with the ground truth, the third 0.4.
    three = candidates([[0, 0, 10, 5], [0, 5, 10, 10], [0, 0, 10, 4]])
    with_low = IoUMatcher(**RPN_MATCHER, allow_low_quality_matches=True)(three, targets([0, 0, 10, 10]))
    without = IoUMatcher(**RPN_MATCHER)(three, targets([0, 0, 10, 10]))
    assert with_low.labels.tolist() == [1, 1, -1]
    assert without.labels.tolist() == [-1, -1, -1]


def test_a_low_quality_match_stays_with_the_ground_truth_it_overlaps_most():
    # The candidate is the second ground truth's best one (IoU 0.25), but it overlaps the first more (0.5).
    two = targets([0, 0, 10, 5], [0, 0, 5, 5])
    matches = IoUMatcher(**RPN_MATCHER, allow_low_quality_matches=True)(candidates([[0, 0, 10, 10]]), two)
    assert matches.labels.tolist() == [1]
    assert matches.gt_index.tolist() == [0]


def test_a_ground_truth_that_nothing_overlaps_makes_nothing_positive():
    far = targets([0, 0, 10, 10], [500, 500, 510, 510])
    matches = IoUMatcher(**RPN_MATCHER, allow_low_quality_matches=True)(
        candidates([[0, 0, 10, 10], [0, 20, 10, 30]]), far
    )
    assert matches.labels.tolist() == [1, 0]


@pytest.mark.parametrize("matcher", [IoUMatcher(**RPN_MATCHER, allow_low_quality_matches=True), ATSSMatcher()])
def test_nothing_to_match(matcher):
    no_object = matcher(candidates([[0, 0, 10, 10], [5, 5, 9, 9]]), targets())
    assert no_object.labels.tolist() == [0, 0]
    assert no_object.gt_index.tolist() == [0, 0]
    assert no_object.quality.tolist() == [0, 0]
    no_candidate = matcher(candidates([]), targets([0, 0, 10, 10]))
    assert len(no_candidate.labels) == len(no_candidate.gt_index) == len(no_candidate.quality) == 0


@pytest.mark.parametrize(("high", "low"), [(0.3, 0.7), (70, 30), (0.5, 0.0), (0.5, -0.1)])
def test_thresholds_are_checked(high, low):
    with pytest.raises(ValueError, match="thresholds must satisfy 0 < low_threshold <= high_threshold <= 1, got"):
        IoUMatcher(high_threshold=high, low_threshold=low)


def naive_match(boxes, gt_boxes, high, low, allow_low):
    """The definition, one candidate at a time."""
    iou = box_iou(gt_boxes, boxes).tolist()  # [G][N]
    best_of_gt = [max(row, default=0.0) for row in iou]
    labels, gt_index = [], []
    for n in range(len(boxes)):
        column = [row[n] for row in iou]
        best = max(column, default=0.0)
        is_best = allow_low and any(value == best_of_gt[g] > 0 for g, value in enumerate(column))
        labels.append(1 if best >= high or is_best else 0 if best < low else -1)
        gt_index.append(column.index(best) if best > 0 else 0)
    return labels, gt_index


# Whole pixels on a small canvas make ties, overlaps and misses all likely.
box = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(1, 6)).map(
    lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3])
)


@given(st.lists(box, max_size=10), st.lists(box, max_size=5), st.sampled_from([0.5, 0.75]), st.booleans())
@settings(deadline=None)
def test_iou_matcher_is_its_definition(boxes, gts, high, allow_low):
    matcher = IoUMatcher(high_threshold=high, low_threshold=0.25, allow_low_quality_matches=allow_low)
    boxes, gts = candidates(boxes), targets(*gts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frcnn.ops.boxes.IOU_CHUNK_ELEMENTS", 20)
        matches = matcher(boxes, gts)
    labels, gt_index = naive_match(boxes.boxes, gts.boxes, high, 0.25, allow_low)
    assert matches.labels.tolist() == labels
    assert matches.gt_index.tolist() == gt_index


ROW = [[x, 0, x + 10, 10] for x in range(0, 50, 10)]  # centres at 5, 15, 25, 35, 45


def test_atss_on_one_level_by_hand():
    # Closest to the centre 18 are candidates 1, 2, 0 with IoU 8/14, 4/18, 0: mean 0.2646 + deviation 0.2881 = 0.5526.
    matches = ATSSMatcher(candidates_per_level=3)(candidates(ROW), targets([12, 0, 24, 10]))
    assert matches.labels.tolist() == [0, 1, 0, 0, 0]
    torch.testing.assert_close(matches.quality, torch.tensor([0, 8 / 14, 0, 0, 0]))


def test_atss_wants_the_centre_inside():
    # Both closest candidates reach the threshold (all IoU are 4/14), but their centres 15 and 25 are outside.
    matches = ATSSMatcher(candidates_per_level=2)(candidates(ROW), targets([16, 0, 24, 10]))
    assert matches.labels.tolist() == [0, 0, 0, 0, 0]


def test_atss_on_an_fpn_by_hand():
    fine = [[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]]
    coarse = [[0, 0, 20, 20]]
    # IoU: 64/360, 80/344, 80/344, 100/324 on the fine level, 324/400 on the coarse one: mean 0.3523 + deviation 0.2601.
    matches = ATSSMatcher(candidates_per_level=4)(candidates(fine, coarse), targets([2, 2, 20, 20]))
    assert matches.labels.tolist() == [0, 0, 0, 0, 1]
    assert matches.quality[4] == pytest.approx(0.81)
    # With one candidate a level the two are 100/324 and 324/400: mean 0.5593 + deviation 0.3545 is above both.
    few = ATSSMatcher(candidates_per_level=1)(candidates(fine, coarse), targets([2, 2, 20, 20]))
    assert few.labels.tolist() == [0, 0, 0, 0, 0]


def test_atss_gives_a_candidate_to_the_ground_truth_it_overlaps_most():
    # Candidate 1 is above the threshold of both: IoU 10/14 with the first, 1 with the second.
    matches = ATSSMatcher(candidates_per_level=3)(candidates(ROW), targets([8, 0, 22, 10], [10, 0, 20, 10]))
    assert matches.labels.tolist() == [0, 1, 0, 0, 0]
    assert matches.gt_index.tolist() == [0, 1, 0, 0, 0]
    assert matches.quality[1] == 1


def test_atss_option_is_checked():
    with pytest.raises(ValueError, match="candidates_per_level must be at least 1, got 0"):
        ATSSMatcher(candidates_per_level=0)


@given(st.lists(box, min_size=1, max_size=10), st.lists(box, max_size=5))
@settings(deadline=None)
def test_atss_chunks_change_nothing(boxes, gts):
    boxes, gts = candidates(boxes, boxes[::2]), targets(*gts)
    matcher = ATSSMatcher(candidates_per_level=2)
    whole = matcher(boxes, gts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frcnn.modeling.matchers.atss.DISTANCE_CHUNK_ELEMENTS", 5)
        chunked = matcher(boxes, gts)
    assert torch.equal(whole.labels, chunked.labels)
    assert torch.equal(whole.gt_index, chunked.gt_index)


PEAK_MEMORY = """
import resource, torch
from frcnn.modeling.matchers import ATSSMatcher, IoUMatcher
from frcnn.structures import Candidates, Targets

def boxes(count):
    corner = torch.rand(count, 2) * 1000
    return torch.cat((corner, corner + 1 + torch.rand(count, 2) * 200), dim=1)

candidates = Candidates([boxes(270_000)])
targets = Targets(boxes({num_gts}), torch.zeros({num_gts}, dtype=torch.int64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
IoUMatcher(high_threshold=0.7, low_threshold=0.3, allow_low_quality_matches=True)(candidates, targets)
ATSSMatcher()(candidates, targets)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("num_gts", [1_000, pytest.param(5_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_ground_truths(num_gts):
    script = PEAK_MEMORY.format(num_gts=num_gts)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    grown = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)  # ru_maxrss is in KiB on Linux
    assert grown < 400 * 2**20  # the matrix of 1,000 x 270,000 alone has 1,030 MiB
