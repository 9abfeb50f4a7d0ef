"""Other frameworks' names under ours: nothing lost silently, classes in our order."""

import pytest
import torch

from frcnn.checkpoint.caffe2 import from_caffe2
from frcnn.checkpoint.detectron2 import from_detectron2
from frcnn.checkpoint.renaming import Rule, rename
from frcnn.checkpoint.torchvision import COCO_LABELS, from_torchvision


def detector(**more):
    """A few tensors of a torchvision detector with two classes and the background."""
    return {
        "backbone.body.conv1.weight": torch.zeros(1),
        "roi_heads.box_predictor.cls_score.bias": torch.tensor([0.5, 1.0, 2.0]),
        "roi_heads.box_predictor.bbox_pred.bias": torch.arange(12.0),
        **{name: torch.zeros(1) for name in more},
    }


def test_the_background_moves_from_first_to_last():
    weights = from_torchvision(detector()).state_dict
    assert weights["roi_heads.box_predictor.cls_score.bias"].tolist() == [1.0, 2.0, 0.5]
    assert weights["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]


def test_the_mask_of_the_background_goes():
    name = "roi_heads.mask_predictor.mask_fcn_logits.bias"
    masks = detector() | {name: torch.tensor([7.0, 8.0, 9.0])}
    ours = "roi_heads.branches.mask.head.predictor.bias"
    assert from_torchvision(masks).state_dict[ours].tolist() == [8.0, 9.0]
    assert from_torchvision(masks, labels=(2,)).state_dict[ours].tolist() == [9.0]


def test_labels_can_be_chosen():
    weights = from_torchvision(detector(), labels=(2,)).state_dict
    assert weights["roi_heads.box_predictor.cls_score.bias"].tolist() == [2.0, 0.5]
    assert weights["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [8.0, 9.0, 10.0, 11.0]
    with pytest.raises(ValueError, match=r"labels must be in 1..2, the objects of these weights; got \[3\]"):
        from_torchvision(detector(), labels=(1, 3))


def test_coco_has_80_of_the_91_labels():
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert len(COCO_LABELS) == 80
    assert [names[label] for label in COCO_LABELS] == [name for name in names if name not in ("__background__", "N/A")]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.body.conv1.weight", "backbone.stem.conv1.weight"),
        ("backbone.body.bn1.running_var", "backbone.stem.conv1.norm.running_var"),
        ("backbone.body.layer1.0.conv1.weight", "backbone.res2.0.conv1.weight"),
        ("backbone.body.layer4.2.bn3.bias", "backbone.res5.2.conv3.norm.bias"),
        ("backbone.body.layer2.0.downsample.0.weight", "backbone.res3.0.shortcut.weight"),
        ("backbone.body.layer2.0.downsample.1.weight", "backbone.res3.0.shortcut.norm.weight"),
        ("rpn.head.conv.0.0.weight", "proposal_generator.head.convs.0.weight"),
        ("rpn.head.conv.weight", "proposal_generator.head.convs.0.weight"),
        ("rpn.head.cls_logits.bias", "proposal_generator.head.objectness.bias"),
        ("rpn.head.bbox_pred.bias", "proposal_generator.head.deltas.bias"),
        ("roi_heads.box_head.fc6.weight", "roi_heads.box_head.fc1.weight"),
        ("roi_heads.box_head.3.1.running_mean", "roi_heads.box_head.convs.3.norm.running_mean"),
        ("roi_heads.box_head.5.weight", "roi_heads.box_head.fcs.0.weight"),
        ("roi_heads.mask_head.3.0.bias", "roi_heads.branches.mask.head.convs.3.bias"),
        ("roi_heads.mask_head.3.1.running_var", "roi_heads.branches.mask.head.convs.3.norm.running_var"),
        ("roi_heads.mask_head.mask_fcn4.bias", "roi_heads.branches.mask.head.convs.3.bias"),
        ("roi_heads.mask_predictor.conv5_mask.bias", "roi_heads.branches.mask.head.deconv.bias"),
        ("roi_heads.keypoint_head.14.weight", "roi_heads.branches.keypoint.head.convs.7.weight"),
        ("roi_heads.keypoint_predictor.kps_score_lowres.bias", "roi_heads.branches.keypoint.head.deconv.bias"),
    ],
)
def test_torchvision_names(theirs, ours):
    assert ours in from_torchvision(detector(**{theirs: None})).state_dict


@pytest.mark.parametrize("index", ["", "0."], ids=["before torchvision 0.13", "since"])
def test_pyramid_levels_end_with_p5(index):
    """Four levels of a ResNet are p2 to p5, two of a MobileNet p4 and p5; old files have an index less."""
    names = [f"backbone.fpn.{side}_blocks.{level}.{index}weight" for side in ("inner", "layer") for level in (0, 1)]
    converted = from_torchvision(detector(**dict.fromkeys(names)))
    assert converted.unused == []
    assert {name for name in converted.state_dict if name.startswith("necks")} == {
        "necks.0.lateral.p4.weight",
        "necks.0.lateral.p5.weight",
        "necks.0.output.p4.weight",
        "necks.0.output.p5.weight",
    }


def test_names_that_nobody_knows_are_returned():
    assert from_torchvision(detector(**{"roi_heads.mask_head.x": None})).unused == ["roi_heads.mask_head.x"]
    assert from_detectron2({"sem_seg_head.p2.weight": torch.zeros(1)}).unused == ["sem_seg_head.p2.weight"]


def test_what_has_no_place_here_is_left_out_with_the_reason():
    anchors = "proposal_generator.anchor_generator.cell_anchors.0"
    assert from_detectron2({anchors: torch.zeros(1), "pixel_mean": torch.zeros(3)}).left_out == {
        anchors: "anchors are made from the config",
        "pixel_mean": "the config says them",
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res_conv1_bn_b", "stem.conv1.norm.bias"),
        ("res2_0_branch1_w", "res2.0.shortcut.weight"),
        ("res2_0_branch1_bn_b", "res2.0.shortcut.norm.bias"),
        ("res4_22_branch2a_w", "res4.22.conv1.weight"),
        ("res5_2_branch2c_bn_riv", "res5.2.conv3.norm.running_var"),
        ("res3_1_branch2b_gn_s", "res3.1.conv2.norm.weight"),
    ],
)
def test_caffe2_names(theirs, ours):
    converted = from_caffe2({theirs: torch.zeros(2)})
    assert converted.origins == {f"backbone.{ours}": theirs}


def test_norms_that_caffe2_folded_get_statistics_that_change_nothing():
    converted = from_caffe2({"res2_0_branch2a_bn_s": torch.full((2,), 3.0), "res2_0_branch2b_gn_s": torch.ones(2)})
    assert {name: value.tolist() for name, value in converted.state_dict.items()} == {
        "backbone.res2.0.conv1.norm.weight": [3, 3],
        "backbone.res2.0.conv1.norm.running_mean": [0, 0],
        "backbone.res2.0.conv1.norm.running_var": [1, 1],
        "backbone.res2.0.conv2.norm.weight": [1, 1],
    }


def test_the_classifier_and_the_first_bias_of_caffe2_are_left_out():
    assert set(from_caffe2(dict.fromkeys(("fc1000_w", "conv1_b", "conv1_w_momentum"), torch.zeros(1))).left_out) == {
        "fc1000_w",
        "conv1_b",
        "conv1_w_momentum",
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.bottom_up.stem.conv1.norm.weight", "backbone.stem.conv1.norm.weight"),
        ("backbone.res4.22.conv3.weight", "backbone.res4.22.conv3.weight"),
        ("res2.0.shortcut.weight", "backbone.res2.0.shortcut.weight"),
        ("backbone.bottom_up.res3.0.conv2_offset.bias", "backbone.res3.0.conv2.offset.bias"),
        ("backbone.fpn_lateral3.weight", "necks.0.lateral.p3.weight"),
        ("backbone.fpn_output5.norm.bias", "necks.0.output.p5.norm.bias"),
        ("proposal_generator.rpn_head.conv.weight", "proposal_generator.head.convs.0.weight"),
        ("proposal_generator.rpn_head.conv.conv1.weight", "proposal_generator.head.convs.1.weight"),
        ("proposal_generator.rpn_head.objectness_logits.bias", "proposal_generator.head.objectness.bias"),
        ("proposal_generator.rpn_head.anchor_deltas.bias", "proposal_generator.head.deltas.bias"),
        ("roi_heads.box_head.fc2.weight", "roi_heads.box_head.fc2.weight"),
        ("roi_heads.box_head.2.fc1.weight", "roi_heads.box_head.2.fc1.weight"),
        ("roi_heads.box_predictor.1.bbox_pred.weight", "roi_heads.box_predictor.1.bbox_pred.weight"),
        ("roi_heads.res5.0.conv1.norm.bias", "roi_heads.box_head.res5.0.conv1.norm.bias"),
        ("roi_heads.mask_head.mask_fcn1.norm.weight", "roi_heads.branches.mask.head.convs.0.norm.weight"),
        ("roi_heads.mask_head.deconv.bias", "roi_heads.branches.mask.head.deconv.bias"),
        ("roi_heads.mask_head.predictor.weight", "roi_heads.branches.mask.head.predictor.weight"),
        ("roi_heads.keypoint_head.conv_fcn8.bias", "roi_heads.branches.keypoint.head.convs.7.bias"),
        ("roi_heads.keypoint_head.score_lowres.weight", "roi_heads.branches.keypoint.head.deconv.weight"),
    ],
)
def test_detectron2_names(theirs, ours):
    assert list(from_detectron2({theirs: torch.zeros(1)}).state_dict) == [ours]


def test_a_convolutional_head_of_detectron2_numbers_its_layers_from_zero():
    names = ["conv1.weight", "conv1.norm.weight", "conv4.weight", "fc1.weight"]
    converted = from_detectron2({f"roi_heads.box_head.{name}": torch.zeros(1) for name in names})
    assert [name.removeprefix("roi_heads.box_head.") for name in converted.state_dict] == [
        "convs.0.weight",
        "convs.0.norm.weight",
        "convs.3.weight",
        "fcs.0.weight",
    ]


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two of the weights would become 'x'; the second is 'b'"):
        rename({"a": torch.zeros(1), "b": torch.zeros(1)}, [Rule("[ab]", "x")])
