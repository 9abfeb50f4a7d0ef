"""ViT with windows: its attention by hand, torchvision's ViT as the measure of the values, and the pyramid behind it."""

import pytest
import torch
import torchvision
from torch import nn

from frcnn.checkpoint.torchvision import from_torchvision
from frcnn.modeling.backbones import ViT
from frcnn.modeling.backbones.vit_attention import (
    Attention,
    distances,
    from_windows,
    to_windows,
    with_relative_positions,
)
from frcnn.modeling.necks import SimpleFeaturePyramid
from frcnn.structures import FeatureShape

TINY = {"width": 32, "depth": 3, "num_heads": 2, "window_size": 3, "global_blocks": (1,), "pretrain_size": 64}


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_windows_are_cut_row_by_row_and_put_together_again():
    x = torch.arange(12.0).reshape(1, 3, 4, 1)
    windows = to_windows(x, 2)
    assert windows.flatten(1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 0, 0], [10, 11, 0, 0]]
    assert torch.equal(from_windows(windows, (3, 4)), x)


def test_distances_by_hand():
    table = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])  # a map of 3: distances -2 to 2
    assert distances(table, 3).squeeze(-1).tolist() == [[0, -1, -2], [1, 0, -1], [2, 1, 0]]
    # A table of 3 for a map of 2, whose distances are -1, 0, 1; and the other way round.
    assert distances(torch.tensor([[-1.0], [0.0], [1.0]]), 2).squeeze(-1).tolist() == [[0, -1], [1, 0]]
    assert distances(table, 2).shape == (2, 2, 1) and distances(table, 7).shape == (7, 7, 1)


def test_relative_positions_are_added_to_the_logits():
    height, width, channels = 2, 3, 4
    q, k = draw(1, 1, 6, channels), draw(1, 1, 6, channels).flip(2)
    table_h, table_w = draw(3, channels), draw(5, channels)
    far_q, far_k = with_relative_positions(q, k, table_h, table_w, (height, width))
    assert far_q.shape == far_k.shape == (1, 1, 6, 16)  # 4 + 2 + 3, rounded up to a multiple of 8
    logits = (far_q @ far_k.transpose(-2, -1))[0, 0]
    for i in range(6):
        for j in range(6):
            rows, columns = i // width - j // width, i % width - j % width
            expected = q[0, 0, i] @ (k[0, 0, j] / 2 + table_h[rows + 1] + table_w[columns + 2])  # sqrt(4) = 2
            assert logits[i, j].item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_window_does_not_see_the_next_one():
    attention = Attention(8, 2, window_size=2, table_size=2)
    x = draw(1, 4, 4, 8)
    other = x.clone()
    other[:, :, 2:] += 1.0
    assert torch.equal(attention(x)[:, :, :2], attention(other)[:, :, :2])
    everywhere = Attention(8, 2, window_size=None, table_size=None)
    assert not torch.allclose(everywhere(x)[:, :, :2], everywhere(other)[:, :, :2])


@pytest.mark.parametrize("size", [(64, 64), (70, 101), (20, 40)])
def test_the_map_is_the_sides_of_the_image_over_16_rounded_up(size):
    backbone = ViT(**TINY).train()
    assert backbone.feature_shapes == {"c4": FeatureShape(32, 16)} and backbone.size_divisibility == 1
    features = backbone(draw(2, 3, *size))
    assert features["c4"].shape == (2, 32, -(-size[0] // 16), -(-size[1] // 16))


def test_vit_b_of_vitdet_has_its_parameters():
    """768 x 16 x 16 x 3 + 768 of patches, 196 x 768 of positions, 12 blocks, 64 x (27 x 2) or (127 x 2) of distances."""
    with torch.device("meta"):
        backbone = ViT()
        plain = torchvision.models.vit_b_16(weights=None).encoder.layers
    count = sum(p.numel() for p in backbone.parameters())
    blocks = sum(p.numel() for p in plain.parameters())
    assert count == 590_592 + 150_528 + blocks + 64 * 2 * (8 * 27 + 4 * 127)


def test_it_computes_what_torchvision_computes():
    """All blocks global, without relative positions and without the class token, which a detector has not."""
    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64).eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.1)
    converted = from_torchvision(theirs.state_dict())
    assert converted.unused == []
    assert {name.split(".")[0] for name in converted.left_out} == {"class_token", "encoder", "heads"}
    ours = ViT(
        **{**TINY, "depth": 2, "num_heads": 4, "global_blocks": (0, 1), "mlp_ratio": 2.0}, relative_position=False
    )
    ours.load_state_dict({name.removeprefix("backbone."): value for name, value in converted.state_dict.items()})
    images = draw(2, 3, 64, 64)
    with torch.no_grad():
        tokens = theirs._process_input(images) + theirs.encoder.pos_embedding[:, 1:]
        expected = theirs.encoder.layers(tokens)  # [B, 16, 32]
        found = ours.eval()(images)["c4"]
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, rtol=1e-5, atol=1e-5)


def test_names_of_mae_are_ours():
    names = {
        "cls_token": (1, 1, 32),
        "pos_embed": (1, 17, 32),
        "patch_embed.proj.weight": (32, 3, 16, 16),
        "blocks.0.attn.qkv.weight": (96, 32),
        "blocks.0.mlp.fc1.bias": (128,),
        "norm.weight": (32,),
    }
    converted = from_torchvision({name: torch.zeros(shape) for name, shape in names.items()})
    assert converted.unused == [] and set(converted.left_out) == {"cls_token", "norm.weight"}
    shapes = {f"backbone.{name}": value.shape for name, value in ViT(**TINY).state_dict().items()}
    assert {name: shapes[name] for name in converted.state_dict} == {
        name: value.shape for name, value in converted.state_dict.items()
    }


def test_positions_are_those_of_pretraining_or_between_them():
    backbone = ViT(**TINY)
    with torch.no_grad():  # 4 x 4 positions, whose first channel is the row
        backbone.pos_embed.zero_()
        backbone.pos_embed[0, :, 0] = torch.arange(16) // 4
    assert torch.equal(backbone.positions(4, 4).flatten(1, 2), backbone.pos_embed)
    larger = backbone.positions(8, 6)
    assert larger.shape == (1, 8, 6, 32)
    torch.testing.assert_close(larger[0, :, 0, 0], larger[0, :, 5, 0])
    assert (larger[0, 1:, 0, 0] > larger[0, :-1, 0, 0]).all()


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 4])
def test_frozen_parts_get_no_gradient_and_the_next_one_does(freeze_at):
    backbone = ViT(**TINY, drop_path=0.0, freeze_at=freeze_at).train()
    features = backbone(draw(1, 3, 64, 64))["c4"]
    parts = [("patch_embed", "pos_embed"), ("blocks.0",), ("blocks.1",), ("blocks.2",)]
    if freeze_at < len(parts):
        features.square().mean().backward()
    for number, names in enumerate(parts):
        grads = [p.grad for name, p in backbone.named_parameters() if name.startswith(names)]
        assert all((grad is None) == (number < freeze_at) for grad in grads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads must divide width, got 5 and 32"),
        ({"global_blocks": (3,)}, r"global_blocks must be in 0..2, got \[3\]"),
        ({"window_size": 0}, "window_size must be at least 1, got 0"),
        ({"patch_size": 14}, "patch_size must be 8, 16 or 32, got 14"),
        ({"freeze_at": 5}, "freeze_at must be in 0..4"),
        ({"drop_path": -0.1}, r"drop_path must be in \[0, 1\), got -0.1"),
        ({"depth": 0, "global_blocks": ()}, "depth must be at least 1 and mlp_ratio above 0, got 0 and 4.0"),
        ({"pretrain_size": 8}, "pretrain_size must be at least patch_size, got 8 and 16"),
        ({"relative_position_size": 0}, "relative_position_size must be at least 1, got 0"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        ViT(**{**TINY, **options})


ONE_MAP = {"c4": FeatureShape(32, 16)}


def test_every_level_is_made_of_the_one_map():
    neck = SimpleFeaturePyramid(ONE_MAP, out_channels=8)
    outputs = neck({"c4": draw(1, 32, 4, 6)})
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "p2": (1, 8, 16, 24),
        "p3": (1, 8, 8, 12),
        "p4": (1, 8, 4, 6),
        "p5": (1, 8, 2, 3),
        "p6": (1, 8, 1, 2),
    }
    assert [shape.stride for shape in neck.feature_shapes.values()] == [4, 8, 16, 32, 64]
    assert neck.size_divisibility == 32


def test_the_level_of_twice_the_stride_is_the_maximum_of_four():
    neck = SimpleFeaturePyramid({"c4": FeatureShape(1, 16)}, strides=(32,), out_channels=1, norm=None, top_block=None)
    for conv in (neck.lateral["p5"], neck.output["p5"]):
        nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
        conv.weight.data[..., conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1.0
    outputs = neck({"c4": torch.tensor([[[[1.0, 2.0, 5.0, 0.0], [4.0, 3.0, 6.0, 7.0]]]])})
    assert outputs["p5"].tolist() == [[[[4.0, 7.0]]]]


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ({}, {}, "in_feature must name one of the maps"),
        ({"c3": FeatureShape(8, 8), **ONE_MAP}, {}, "in_feature must name one of the maps c3, c4"),
        (ONE_MAP, {"in_feature": "c5"}, "in_features has c5, which is none of the feature maps c4"),
        (ONE_MAP, {"strides": (8, 4)}, r"strides must be out of \[4, 8, 16, 32\] for a map of stride 16"),
        (ONE_MAP, {"strides": (64,)}, r"fine to coarse, got \[64\]"),
        (ONE_MAP, {"out_channels": 0}, "out_channels must be at least 1, got 0"),
    ],
)
def test_mistakes_of_the_pyramid_are_explained(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(shapes, **options)
