import pytest
import torch

from frcnn.modeling.matchers import FCOSMatcher, RegionMatcher
from frcnn.structures import Candidates, Targets


def targets(*boxes):
    return Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))


def grid(size, stride, anchor):
    """Square anchors around the centres of the cells of a square map."""
    centers = [(x + 0.5) * stride for x in range(size)]
    half = anchor / 2
    return torch.tensor([[x - half, y - half, x + half, y + half] for y in centers for x in centers])


def test_middle_and_surroundings_by_hand():
    # Centres at 2, 6, ..., 38 along each axis. The object [0, 40] has its middle fifth at 16..24: 18 and 22 lie inside,
    # and its middle half at 10..30: 14 and 26 also lie inside.
    matches = RegionMatcher()(Candidates([grid(10, 4, 40)]), targets([0, 0, 40, 40]))
    labels = matches.labels.reshape(10, 10)
    assert labels[4].tolist() == [0, 0, 0, -1, 1, 1, -1, 0, 0, 0]
    assert labels[3].tolist() == [0, 0, 0, -1, -1, -1, -1, 0, 0, 0]
    assert labels[2].tolist() == [0] * 10
    assert (labels == 1).sum() == 4
    # The anchor at (18, 18) is [-2, 38]: 38 x 38 of 1600 are shared, of 1600 + 1600 in all.
    assert matches.quality.reshape(10, 10)[4, 4].item() == pytest.approx(38**2 / (3200 - 38**2))


def test_an_object_goes_to_the_level_of_its_size_and_never_between_the_candidates():
    levels = Candidates([grid(8, 8, 16), grid(4, 16, 64)])
    matches = RegionMatcher()(levels, targets([0, 0, 15, 15], [2, 2, 62, 62]))
    fine, coarse = matches.labels.split([64, 16])
    # The small object has its middle at 6..9, where no centre (4, 12, ...) lies: the closest one, (4, 4), is taken.
    assert torch.nonzero(fine == 1).tolist() == [[0]]
    assert matches.gt_index[0] == 0
    # The large one has its middle at 26..38, between the centres 24 and 40: the first of the four closest is taken.
    assert torch.nonzero(coarse == 1).tolist() == [[5]]
    assert matches.gt_index[64 + 5] == 1


def test_the_smaller_of_two_objects_wins_whatever_their_order():
    anchors = Candidates([grid(10, 4, 40)])
    large, small = [0.0, 0.0, 40.0, 40.0], [4.0, 4.0, 36.0, 36.0]  # one centre, middles 16..24 and 16.8..23.2
    for boxes, winner in (([large, small], 1), ([small, large], 0)):
        matches = RegionMatcher()(anchors, targets(*boxes))
        assert matches.gt_index[matches.labels == 1].tolist() == [winner] * 4


def test_the_chunks_of_ground_truths_make_no_difference(monkeypatch):
    torch.manual_seed(0)
    corner = torch.rand(9, 2) * 20
    gts = targets(*torch.cat((corner, corner + 2 + torch.rand(9, 2) * 18), dim=1).tolist())
    levels = Candidates([grid(10, 4, 8), grid(5, 8, 16)])
    for matcher in (RegionMatcher(), FCOSMatcher(size_limits=(16.0,))):
        whole = matcher(levels, gts)
        with monkeypatch.context() as patched:
            patched.setattr("frcnn.modeling.matchers.claims.CLAIM_CHUNK_ELEMENTS", 1)
            parts = matcher(levels, gts)
        assert (whole.labels == 1).any()
        assert torch.equal(whole.labels, parts.labels)
        assert torch.equal(whole.gt_index, parts.gt_index)
        assert torch.equal(whole.quality, parts.quality)


def test_nothing_to_match():
    anchors = Candidates([grid(2, 4, 8), torch.zeros(0, 4)])
    assert RegionMatcher()(anchors, targets()).labels.tolist() == [0] * 4
    assert (RegionMatcher()(anchors, targets([0, 0, 8, 8])).labels == 1).sum() == 1
    assert len(RegionMatcher()(Candidates([torch.zeros(0, 4)]), targets([0, 0, 8, 8])).labels) == 0


def test_ratios_are_checked():
    with pytest.raises(
        ValueError, match=r"ratios must satisfy 0 < center_ratio <= ignore_ratio <= 1, got center_ratio 0.6"
    ):
        RegionMatcher(center_ratio=0.6)
