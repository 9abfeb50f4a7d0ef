import math

import pytest
import torch
from torchvision.models.detection import roi_heads as theirs

from frcnn.ops.keypoints import heatmaps_to_keypoints, keypoints_to_cells


def test_cells_by_hand():
    # A box of 8 x 8 pixels at (10, 20) in a grid of 4 x 4 cells, 2 pixels each.
    keypoints = torch.tensor(
        [
            [
                [10.0, 20.0, 2.0],  # upper left corner: cell 0
                [13.0, 25.0, 1.0],  # third pixel, sixth row: column 1, row 2; hidden counts
                [18.0, 28.0, 2.0],  # on the lower right corner: the last cell
                [13.0, 25.0, 0.0],  # not labelled
                [9.9, 25.0, 2.0],  # outside
            ]
        ]
    )
    cells, valid = keypoints_to_cells(keypoints, torch.tensor([[10.0, 20.0, 18.0, 28.0]]), 4)
    assert cells.tolist() == [[0, 9, 15, 0, 0]]
    assert valid.tolist() == [[True, True, True, False, False]]


def test_a_box_without_width_has_no_cell_beside_it():
    _, valid = keypoints_to_cells(torch.tensor([[[6.0, 5.0, 2.0]]]), torch.tensor([[5.0, 4.0, 5.0, 8.0]]), 4)
    assert valid.tolist() == [[False]]


def random_case(count=12, num_keypoints=5):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat((corners, corners + 0.5 + torch.rand(count, 2, generator=generator) * 70), dim=1)
    places = torch.rand(count, num_keypoints, 2, generator=generator) * 1.5 - 0.25  # some outside
    xy = boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2])
    visibility = torch.randint(0, 3, (count, num_keypoints, 1), generator=generator)
    keypoints = torch.cat((xy, visibility), dim=2)
    keypoints[0, 0, :2] = boxes[0, 2:]
    heatmaps = torch.randn(count, num_keypoints, 56, 56, generator=generator) * 3
    return boxes, keypoints, heatmaps


def test_cells_are_torchvisions():
    boxes, keypoints, _ = random_case()
    cells, valid = keypoints_to_cells(keypoints, boxes, 56)
    expected_cells, expected_valid = theirs.keypoints_to_heatmap(keypoints, boxes, 56)
    assert torch.equal(cells, expected_cells)
    assert torch.equal(valid, expected_valid.bool())
    assert 10 < valid.sum() < valid.numel() - 10


def test_decoding_is_torchvisions():
    boxes, _, heatmaps = random_case()
    found = heatmaps_to_keypoints(heatmaps, boxes, score="logit")
    expected, scores = theirs.heatmaps_to_keypoints(heatmaps, boxes)
    torch.testing.assert_close(found[..., :2], expected[..., :2])
    torch.testing.assert_close(found[..., 2], scores)


def test_decoding_by_hand():
    # One cell of 8 x 8 stands out; the box has 8 x 8 pixels, so nothing is resized: the keypoint is at the cell's centre.
    heatmaps = torch.zeros(1, 1, 8, 8)
    heatmaps[0, 0, 2, 5] = 3.0
    boxes = torch.tensor([[100.0, 50.0, 108.0, 58.0]])
    found = heatmaps_to_keypoints(heatmaps, boxes, score="probability")[0, 0]
    assert found[:2].tolist() == [105.5, 52.5]
    assert found[2].item() == pytest.approx(math.exp(3) / (math.exp(3) + 63))
    assert heatmaps_to_keypoints(heatmaps, boxes, score="logit")[0, 0, 2] == 3.0


def test_no_box():
    assert heatmaps_to_keypoints(torch.zeros(0, 17, 56, 56), torch.zeros(0, 4), score="logit").shape == (0, 17, 3)
