import math

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from frcnn.modeling.poolers import LevelAssignment, ROIAlign, ROIPool
from frcnn.structures import FeatureShape

FPN_SHAPES = {f"p{level}": FeatureShape(4, 2**level) for level in range(2, 6)}


def fpn_maps(batch=2, size=256):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(batch, 4, size // shape.stride, size // shape.stride, generator=generator)
        for name, shape in FPN_SHAPES.items()
    }


def square(side, x=0.0, y=0.0):
    return [x, y, x + side, y + side]


def assign(strides=(4, 8, 16, 32), level_epsilon="inside_log"):
    return LevelAssignment(strides, canonical_size=224, canonical_level=4, level_epsilon=level_epsilon)


def test_a_box_of_224_px_belongs_to_stride_16_and_each_doubling_goes_one_up():
    boxes = torch.tensor([square(10), square(111), square(112), square(223), square(224), square(448), square(2000)])
    assert assign()(boxes).tolist() == [0, 0, 1, 1, 2, 3, 3]


def test_the_two_epsilons_differ_just_below_a_boundary():
    # log2(223.99995 / 224) is -3.2e-7: 1e-6 behind the logarithm lifts it over the boundary, 1e-8 inside does not.
    boxes = torch.tensor([square(223.99995)])
    assert assign()(boxes).tolist() == [1]
    assert assign(level_epsilon="outside_log")(boxes).tolist() == [2]


def test_empty_and_nan_boxes_have_a_level_too():
    boxes = torch.tensor([square(0.0), [10.0, 10.0, 5.0, 20.0], [math.nan] * 4])
    assert all(0 <= level <= 3 for level in assign()(boxes).tolist())


def test_two_levels_of_one_stride_use_the_first():
    assert assign(strides=(32, 32))(torch.tensor([square(10), square(1000)])).tolist() == [0, 0]


def test_strides_must_ascend():
    with pytest.raises(ValueError, match=r"must ascend, got \[8, 4\]"):
        assign(strides=(8, 4))


def test_roi_align_of_a_ramp_by_hand():
    # The map's value is its column. A box over columns 1..3, at half-pixel centres: cells [1, 2) and [2, 3) average
    # 1 and 2 when pixels lie at their centres (aligned), and half a pixel more when they lie at their corners.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    shapes = {"res4": FeatureShape(1, 2)}
    boxes = [torch.tensor([[2.0, 2.0, 6.0, 6.0]])]
    aligned = ROIAlign(shapes, resolution=2)({"res4": ramp}, boxes)
    assert aligned.tolist() == [[[[1.0, 2.0], [1.0, 2.0]]]]
    corners = ROIAlign(shapes, resolution=2, aligned=False)({"res4": ramp}, boxes)
    assert corners.tolist() == [[[[1.5, 2.5], [1.5, 2.5]]]]


def test_roi_pool_takes_the_maximum_by_hand():
    # Box 0..6 px at stride 2 covers columns 0..3: the two cells hold columns 0..1 and 2..3.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    pooled = ROIPool({"res4": FeatureShape(1, 2)}, resolution=2)({"res4": ramp}, [torch.tensor([square(6.0)])])
    assert pooled.tolist() == [[[[1.0, 3.0], [1.0, 3.0]]]]


@pytest.mark.parametrize("pooler", [ROIAlign, ROIPool])
def test_every_box_comes_from_its_own_image_and_level_in_the_order_given(pooler):
    maps = {
        name: torch.stack([torch.full((4, 64, 64), 10.0 * image + level) for image in range(2)])
        for level, name in enumerate(FPN_SHAPES)
    }
    boxes = [
        torch.tensor([square(230.0), square(20.0), square(460.0)]),
        torch.tensor([square(120.0), square(20.0)]),
    ]
    pooled = pooler(FPN_SHAPES, resolution=2)(maps, boxes)
    assert pooled.shape == (5, 4, 2, 2)
    assert pooled.amax(dim=(1, 2, 3)).tolist() == [2.0, 0.0, 3.0, 11.0, 10.0]


def test_equals_torchvision_on_all_levels():
    maps = fpn_maps()
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 60, 2, generator=generator) * 100
    sizes = 2 ** (2 + 5 * torch.rand(2, 60, 2, generator=generator))
    boxes = list(torch.cat((corners, corners + sizes), dim=-1))
    reference = MultiScaleRoIAlign(list(FPN_SHAPES), output_size=7, sampling_ratio=2)(maps, boxes, [(256, 256)] * 2)
    ours = ROIAlign(FPN_SHAPES, resolution=7, sampling_ratio=2, aligned=False, level_epsilon="outside_log")(maps, boxes)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooler", [ROIAlign, ROIPool])
def test_no_boxes_at_all_have_a_gradient(pooler):
    maps = {name: value.requires_grad_() for name, value in fpn_maps().items()}
    pooled = pooler(FPN_SHAPES)(maps, [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert pooled.shape == (0, 4, 7, 7)
    pooled.sum().backward()
    assert maps["p2"].grad.abs().sum() == 0


@pytest.mark.parametrize("pooler", [ROIAlign, ROIPool])
def test_half_precision_features_are_pooled_with_float32_boxes(pooler):
    # In bfloat16 this box of 1 px at 1001 would have no width: 1001 and 1002 both round to 1000.
    maps = {"p2": fpn_maps(1, size=1024)["p2"].bfloat16()}
    boxes = [torch.tensor([square(1.0, x=1001.0, y=1001.0)])]
    part = pooler({"p2": FPN_SHAPES["p2"]}, resolution=2)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = part(maps, boxes)
    assert pooled.dtype == torch.bfloat16
    expected = part({"p2": maps["p2"].float()}, boxes)
    torch.testing.assert_close(pooled, expected.bfloat16(), rtol=0, atol=0)


def test_levels_of_different_width_are_refused():
    with pytest.raises(ValueError, match="equally wide"):
        ROIAlign({"res3": FeatureShape(128, 8), "res4": FeatureShape(256, 16)})
