import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.image_list import ImageList

from frcnn.modeling.anchors import GridAnchorGenerator, OctaveAnchorGenerator

FPN_SIZES = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))


def test_cell_anchors_by_hand():
    generator = GridAnchorGenerator([16], sizes=((32.0, 64.0),), aspect_ratios=(0.5, 1.0))
    expected = [
        [-22.6274, -11.3137, 22.6274, 11.3137],  # size 32, half as high as wide
        [-16.0, -16.0, 16.0, 16.0],
        [-45.2548, -22.6274, 45.2548, 22.6274],  # size 64
        [-32.0, -32.0, 32.0, 32.0],
    ]
    anchors = generator.generate_anchors((32.0, 64.0), (0.5, 1.0))
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=0, atol=1e-4)
    assert generator.num_anchors == 4
    assert not generator.state_dict()


def test_order_by_ratio_goes_through_the_sizes_first():
    options = {"sizes": ((32.0, 64.0),), "aspect_ratios": (0.5, 1.0)}
    by_size = GridAnchorGenerator([16], **options).cell_anchors[0]
    by_ratio = GridAnchorGenerator([16], order="ratio", **options).cell_anchors[0]
    assert torch.equal(by_ratio, by_size[[0, 2, 1, 3]])


def test_grid_by_hand():
    generator = GridAnchorGenerator([4, 8], sizes=((2.0,), (6.0,)), aspect_ratios=(1.0,), offset=0.5)
    fine, coarse = generator([(2, 2), (1, 1)], (8, 8))
    assert fine.tolist() == [[1, 1, 3, 3], [5, 1, 7, 3], [1, 5, 3, 7], [5, 5, 7, 7]]  # y, then x
    assert coarse.tolist() == [[1, 1, 7, 7]]


def test_stride_from_the_padded_size():
    options = {"sizes": ((2.0,),), "aspect_ratios": (1.0,)}
    declared = GridAnchorGenerator([64], **options)([(13, 21)], (800, 1344))[0]
    padded = GridAnchorGenerator([64], stride="padded_size", **options)([(13, 21)], (800, 1344))[0]
    assert declared[-1].tolist() == [20 * 64 - 1, 12 * 64 - 1, 20 * 64 + 1, 12 * 64 + 1]
    assert padded[-1].tolist() == [20 * 64 - 1, 12 * 61 - 1, 20 * 64 + 1, 12 * 61 + 1]


@pytest.mark.parametrize("sizes", [FPN_SIZES, ((32.0, 64.0, 128.0, 256.0, 512.0),) * 3])
def test_equal_to_torchvision(sizes):
    strides = [4, 8, 16, 32, 64][: len(sizes)]
    grids = [(-(-416 // stride), -(-544 // stride)) for stride in strides]
    ours = GridAnchorGenerator(
        strides, sizes=sizes, aspect_ratios=(0.5, 1.0, 2.0), round_cells=True, stride="padded_size", order="ratio"
    )(grids, (416, 544))
    theirs = TorchvisionAnchors(sizes, ((0.5, 1.0, 2.0),) * len(sizes))(
        ImageList(torch.zeros(1, 3, 416, 544), [(416, 544)]), [torch.zeros(1, 1, *grid) for grid in grids]
    )[0]
    assert torch.equal(torch.cat(ours), theirs)


def test_ratios_per_level():
    generator = GridAnchorGenerator([4, 8], sizes=((8.0,), (16.0,)), aspect_ratios=((1.0,), (4.0,)))
    assert generator.cell_anchors.tolist() == [[[-4, -4, 4, 4]], [[-4, -16, 4, 16]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ((32.0,),), "aspect_ratios": (1.0,)}, "sizes has 1 levels, but there are 2 feature levels"),
        ({"sizes": ((32.0,),) * 2, "aspect_ratios": ((1.0,),) * 3}, "aspect_ratios has 3 levels"),
        (
            {"sizes": ((32.0,), (32.0, 64.0)), "aspect_ratios": (1.0,)},
            r"same number of anchors per location, got \[1, 2\]",
        ),
        ({"sizes": ((32.0,), (-1.0,)), "aspect_ratios": (1.0,)}, "all positive"),
        ({"sizes": ((32.0,), ()), "aspect_ratios": (1.0,)}, "at least one"),
        ({"sizes": ((32.0,),) * 2, "aspect_ratios": ()}, "at least one"),
        ({"sizes": ((32.0,),) * 2, "aspect_ratios": (1.0,), "offset": 8.0}, r"offset must be in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GridAnchorGenerator([4, 8], **options)


def test_anchors_stay_float32_under_autocast():
    generator = GridAnchorGenerator([16], sizes=((32.0,),), aspect_ratios=(0.5,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (anchors,) = generator([(3, 100)], (48, 1600))
    assert anchors.dtype == torch.float32
    assert len(anchors[:, 0].unique()) == 100


def test_octave_scales_are_multiples_of_the_stride():
    # Three sizes an octave from 4 strides on: 32, 40.3 and 50.8 px at stride 8, twice as much at stride 16.
    generator = OctaveAnchorGenerator([8, 16], aspect_ratios=(1.0,))
    half_sides = generator.cell_anchors[:, :, 2]  # [L, A]
    torch.testing.assert_close(half_sides[0], torch.tensor([16.0, 16.0 * 2 ** (1 / 3), 16.0 * 2 ** (2 / 3)]))
    torch.testing.assert_close(half_sides[1], 2 * half_sides[0])
    assert OctaveAnchorGenerator([8], scales_per_octave=2).num_anchors == 6


def test_octave_options_are_checked():
    with pytest.raises(ValueError, match="octave_base_scale must be above 0, got 0"):
        OctaveAnchorGenerator([8], octave_base_scale=0)
    with pytest.raises(ValueError, match="scales_per_octave must be at least 1, got 0"):
        OctaveAnchorGenerator([8], scales_per_octave=0)
