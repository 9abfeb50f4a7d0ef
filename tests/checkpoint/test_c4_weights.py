from pathlib import Path

import torch
from torchvision.models import resnet50

from frcnn.checkpoint.load import load_weights, res5_where_the_model_has_it
from frcnn.checkpoint.torchvision import from_torchvision
from frcnn.experiment import read_config

ROOT = Path(__file__).parent.parent.parent


def test_a_classifier_fills_both_the_backbone_and_the_box_head_of_a_c4_model():
    model = read_config(ROOT / "configs/coco/faster_rcnn_R_50_C4_1x.yaml").build().model(3)
    weights = resnet50(weights=None).state_dict()
    converted = from_torchvision(weights).state_dict
    report = load_weights(model, res5_where_the_model_has_it(converted, model), source="resnet50", strict=False)
    assert not [name for name in report.missing if "res5" in name or name.startswith("backbone")]
    torch.testing.assert_close(model.roi_heads.box_head.res5[0].conv1.weight, weights["layer4.0.conv1.weight"])


def test_a_model_with_res5_in_its_backbone_keeps_the_names():
    model = read_config(ROOT / "configs/coco/faster_rcnn_R_50_FPN_1x.yaml").build().model(3)
    names = {"backbone.res5.0.conv1.weight": torch.zeros(1)}
    assert res5_where_the_model_has_it(names, model).keys() == names.keys()
