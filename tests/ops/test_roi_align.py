"""ROIAlign with a backward pass in threads: bit for bit what torchvision gives."""

import pytest
import torch
import torchvision.ops
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.ops.roi_align import _balanced, roi_align


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def rois_of(counts, generator):
    """As many random boxes for each image as `counts` says, image after image."""
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).float()
    corner = torch.rand(len(image), 2, generator=generator) * 40
    size = torch.rand(len(image), 2, generator=generator) * 30 + 1
    return torch.cat((image[:, None], corner, corner + size), dim=1)


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    sampling_ratio=st.sampled_from([0, 2]),
    aligned=st.booleans(),
)
def test_value_and_gradient_are_torchvisions_to_the_last_bit(counts, sampling_ratio, aligned):
    generator = torch.Generator().manual_seed(sum(counts))
    rois = rois_of(counts, generator)
    feature = torch.randn(len(counts), 3, 12, 12, generator=generator)
    weight = torch.randn(len(rois), 3, 4, 4, generator=generator)
    results = []
    for pool in (roi_align, torchvision.ops.roi_align):
        x = feature.clone().requires_grad_()
        pooled = pool(x, rois, 4, 0.2, sampling_ratio, aligned)
        (pooled * weight).sum().backward()
        results.append((pooled.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_images_are_cut_where_the_boxes_halve():
    assert _balanced([0, 10, 20, 30, 40], 2) == [0, 2, 4]
    assert _balanced([0, 38, 39, 40], 2) == [0, 1, 3]
    assert _balanced([0, 0, 0], 2) == [0, 2]
    assert _balanced([0, 10, 20], 8) == [0, 1, 2]


def test_without_gradient_it_is_torchvisions_function():
    feature = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        pooled = roi_align(feature.requires_grad_(), rois_of([1, 1], torch.Generator()), 2, 0.2, 2, True)
    assert pooled.grad_fn is None
