"""BlurPoolResNet by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frcnn.config import import_file
from frcnn.deploy.prediction import Prediction
from frcnn.experiment import read_config
from frcnn.modeling.backbones.resnet import ResNet

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project():
    return import_file(PROJECT / "blurpool_resnet.py")


def test_the_blur_is_1_2_1_along_each_side(project):
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 16.0
    assert project.BlurPool(3)(image)[0, 0].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 1, 2] = 16.0  # between two rows that are kept: each has half of it
    assert project.BlurPool(3)(image)[0, 0].tolist() == [[0, 2, 0], [0, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize("filter_size", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (5, 6)])
def test_an_even_map_stays_even_and_odd_sides_are_rounded_up(project, filter_size, size):
    blurred = project.BlurPool(filter_size)(torch.full((1, 2, *size), 3.0))
    assert blurred.shape == (1, 2, -(-size[0] // 2), -(-size[1] // 2))
    torch.testing.assert_close(blurred, torch.full_like(blurred, 3.0))


def test_stripes_that_plain_steps_lose_become_their_mean(project):
    stripes = torch.tensor([1.0, 0.0]).repeat(4).expand(1, 1, 8, 8)
    assert stripes[..., ::2, ::2].unique().tolist() == [1.0]  # every second pixel: the stripes are gone, all is white
    moved = stripes.roll(1, dims=3)
    assert moved[..., ::2, ::2].unique().tolist() == [0.0]  # one pixel further all is black
    blur = project.BlurPool(3)
    assert blur(stripes)[..., 1:].unique().tolist() == blur(moved)[..., 1:].unique().tolist() == [0.5]


@pytest.mark.parametrize("depth", [18, 50])
def test_maps_and_parameters_are_those_of_resnet(project, depth):
    with torch.device("meta"):
        plain = ResNet(depth=depth, norm="BN", freeze_at=0)
        blurred = project.BlurPoolResNet(depth=depth, norm="BN", freeze_at=0)
        images = torch.zeros(1, 3, 65, 96)
        shapes = [{name: map.shape for name, map in net(images).items()} for net in (plain, blurred)]
    assert blurred.feature_shapes == plain.feature_shapes
    assert shapes[0] == shapes[1]
    assert {n: v.shape for n, v in blurred.state_dict().items()} == {n: v.shape for n, v in plain.state_dict().items()}


def test_only_the_first_convolution_still_drops_pixels_unblurred(project):
    net = project.BlurPoolResNet(depth=18)
    strided = [name for name, layer in net.named_modules() if getattr(layer, "stride", (1, 1)) == (2, 2)]
    assert strided == ["stem.conv1"]
    assert sum(isinstance(layer, project.BlurPool) for layer in net.modules()) == 1 + 3 * 2  # stem, conv1 and shortcut


def test_frozen_parts_stay_frozen_and_the_rest_learns(project):
    net = project.BlurPoolResNet(depth=18, norm="BN", freeze_at=4)
    learning = {name.split(".")[0] for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learning == {"res5"}


def test_features_follow_a_moved_image_better_than_those_of_resnet(project):
    """The same weights; the image moves by 4 pixels, the maps of stride 4 by one: the nearer to that, the better."""

    def inconsistency(net):
        # Padded by a frame of its own, so that nothing at the border changes when the image is moved.
        image = torch.zeros(1, 3, 96, 96)
        image[..., 32:64, 32:64] = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            here, there = net(image)["res3"], net(image.roll((4, 4), dims=(2, 3)))["res3"]
        return float((here - there).norm() / here.norm())

    torch.manual_seed(0)
    plain = ResNet(depth=18, norm="FrozenBN", freeze_at=0, out_features=("res3",))
    blurred = project.BlurPoolResNet(depth=18, norm="FrozenBN", freeze_at=0, out_features=("res3",))
    blurred.load_state_dict(plain.state_dict())
    assert inconsistency(blurred.eval()) < inconsistency(plain.eval())


def test_a_filter_without_a_blur_is_refused(project):
    with pytest.raises(ValueError, match=r"filter_size must be in 2\.\.5, got 1"):
        project.BlurPool(1)


def test_the_config_is_right():
    read_config(PROJECT / "configs" / "shapes_blurpool.yaml").build()


@pytest.mark.parametrize(("drift", "expected"), [(0.0, (0.0, 1.0)), (5.0, (0.0, 15 / 25)), (15.0, (0.8, 0.0))])
def test_a_detection_is_followed_through_the_moved_views(drift, expected):
    """A square of 20 px found at 0.8 in every view; `drift` is how far the boxes in moved views are off."""
    measure = import_file(PROJECT / "measure_shift.py")

    def predictor(views):
        lefts = [30.0] + [30.0 - move + drift for move in range(1, measure.MOST + 1)]
        tops = [30.0 - move for move in range(measure.MOST + 1)]
        return [
            Prediction(
                view,
                np.array([[left, top, left + 20, top + 20]], np.float32),
                np.array([0.8], np.float32),
                np.array([1]),
                (),
            )
            for view, left, top in zip(views, lefts, tops, strict=True)
        ]

    found = measure.changes(predictor, np.zeros((100, 100, 3), np.uint8), score_thresh=0.5)
    assert found == [pytest.approx(expected)] * measure.MOST
