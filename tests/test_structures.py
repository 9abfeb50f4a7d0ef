import torch

from frcnn.structures import Batch, DrawKey


def numbers(batch):
    return [batch.draw.number(place, "rpn") for place in range(len(batch))]


def make(draw):
    sizes = [(4, 4)] * 4
    return Batch([torch.zeros(3, 4, 4)] * 4, sizes, sizes, [7, 3, 9, 5], draw=draw)


def test_images_keep_their_draws_in_the_parts_of_a_batch():
    for draw in (DrawKey(seed=1, iteration=2, first_image=8), DrawKey(images=(7, 3, 9, 5))):
        whole = make(draw)
        assert len(set(numbers(whole))) == 4
        first, second = whole.split(2)
        assert numbers(first) + numbers(second) == numbers(whole)


def test_an_image_has_the_draws_of_its_id_wherever_it_stands():
    assert DrawKey(images=(7, 3)).number(1, "rpn") == DrawKey(images=(3,)).number(0, "rpn")
