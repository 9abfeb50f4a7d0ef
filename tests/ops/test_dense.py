import pytest
import torch

from frcnn.ops.dense import flatten_map, gather_from_levels, gather_from_map


def named_map(num_anchors, num_values, height, width, image=0, level=0):
    """[1, A*C, H, W] whose values spell level, image, y, x, anchor, value."""
    dense = torch.zeros(1, num_anchors * num_values, height, width)
    for anchor in range(num_anchors):
        for value in range(num_values):
            for y in range(height):
                for x in range(width):
                    spelled = level * 100_000 + image * 10_000 + y * 1000 + x * 100 + anchor * 10 + value
                    dense[0, anchor * num_values + value, y, x] = spelled
    return dense


def test_order_is_y_x_anchor():
    flat = flatten_map(named_map(2, 4, 2, 3), 4)[0]  # [12, 4]
    assert flat[:, 0].tolist() == [0, 10, 100, 110, 200, 210, 1000, 1010, 1100, 1110, 1200, 1210]
    assert flat[7].tolist() == [1010, 1011, 1012, 1013]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gather_is_an_index_into_the_flat_map(memory_format):
    dense = torch.cat([named_map(2, 4, 2, 3, image=i) for i in range(2)]).to(memory_format=memory_format)
    index = torch.tensor([[0, 11, 5], [7, 7, 2]])
    gathered = gather_from_map(dense, 4, torch.arange(2)[:, None], index)  # [2, 3, 4]
    flat = flatten_map(dense, 4)
    assert torch.equal(gathered, torch.stack([flat[0][index[0]], flat[1][index[1]]]))


def test_gather_over_levels_keeps_the_order_asked_for_and_has_a_gradient():
    maps = [
        torch.cat([named_map(2, 1, *size, image=i, level=level) for i in range(2)]).requires_grad_()
        for level, size in enumerate([(2, 3), (1, 2)])
    ]  # candidates 0..11 and 12..15
    index, image = torch.tensor([13, 0, 11, 12]), torch.tensor([1, 0, 1, 0])
    values = gather_from_levels(maps, 1, image, index)
    assert values[:, 0].tolist() == [110_010, 0, 11_210, 100_000]
    values.sum().backward()
    assert maps[0].grad.sum() == 2
    assert maps[1].grad.sum() == 2
    nothing = gather_from_levels(maps, 1, image[:0], index[:0])
    assert nothing.shape == (0, 1)
    assert nothing.requires_grad
