"""FLOPs and activations against numbers by hand."""

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d, roi_align

from frcnn.cli.main import main
from frcnn.inspect.analysis import analyse, stated_boxes
from frcnn.inspect.analysis_table import analysis_table
from frcnn.modeling.roles import Detector, ProposalGenerator
from frcnn.structures import Detections, Output, Proposals


class Given(ProposalGenerator):
    """Proposes nothing, whatever it sees."""

    def forward(self, features, batch):
        empty = torch.zeros(0)
        return [Proposals(torch.zeros(0, 4), empty, empty.long(), empty.long()) for _ in range(len(batch))], {}


class OneConv(Detector):
    """A convolution of the image, and a linear layer for each proposal."""

    def __init__(self):
        super().__init__(num_classes=1)
        self.stages = nn.ModuleList([nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)])
        self.proposal_generator = Given()
        self.head = nn.Linear(4, 5)
        self.stages[0].weight.requires_grad_(False)

    def forward(self, batch):
        self.stages[0](batch.images[0].float()[None])
        proposals, _ = self.proposal_generator({}, batch)
        self.head(proposals[0].boxes)
        none = torch.zeros(0)
        return Output([Detections(torch.zeros(0, 4), none, none.long(), none.long())], {})


def counts(detector, size, **numbers):
    return {module.name: module for module in analyse(detector, size, **numbers).modules}


def test_a_convolution_by_hand():
    conv = counts(OneConv(), (32, 64))["stages.0"]
    assert conv.parameters == 3 * 8 * 9
    assert conv.trainable == 0
    assert conv.activations == 8 * 16 * 32  # stride 2 halves both sides
    assert conv.flops == 2 * (8 * 16 * 32) * (3 * 9)  # each output is a sum of 27 products; 2 FLOPs a multiply-add


def test_a_list_of_modules_has_what_its_children_have():
    found = counts(OneConv(), (32, 64))
    assert found["stages"].flops == found["stages.0"].flops


def test_the_roi_part_is_counted_at_the_stated_number_of_proposals():
    for number in (1, 300):
        found = counts(OneConv(), (32, 32), num_proposals=number)
        assert found["head"].flops == 2 * number * 4 * 5
        assert found[""].flops == found["stages"].flops + found["head"].flops


def test_the_detector_is_left_as_it_was():
    detector = OneConv().train()
    analyse(detector, (32, 32))
    assert detector.training
    assert not detector.proposal_generator._forward_hooks


class Calls(Detector):
    """A detector that is one function."""

    def __init__(self, function):
        super().__init__(num_classes=1)
        self.function = function

    def forward(self, batch):
        self.function()
        return Output([], {})


def flops_of(function):
    return analyse(Calls(function), (32, 32)).total.flops


def test_a_deformable_convolution_is_a_convolution_and_its_samples():
    x, weight = torch.rand(1, 4, 5, 6), torch.rand(8, 4, 3, 3)
    offset = torch.zeros(1, 18, 5, 6)
    convolution = 2 * (8 * 5 * 6) * (4 * 9)
    samples = (4 * 5 * 6 * 9) * 8  # four multiply-adds for each of 9 taps of 4 channels at 30 positions
    assert flops_of(lambda: deform_conv2d(x, offset, weight, padding=1)) == convolution + samples


def test_roi_align_is_counted_by_its_samples():
    feature = torch.rand(1, 16, 10, 10)
    boxes = [torch.tensor([[0.0, 0.0, 8.0, 4.0]])]
    assert flops_of(lambda: roi_align(feature, boxes, 2, sampling_ratio=2)) == (2 * 2) * (2 * 2) * 16 * 8
    # adaptive: a cell is 4 wide and 2 high, so it takes 4 x 2 samples
    assert flops_of(lambda: roi_align(feature, boxes, 2, sampling_ratio=0)) == (2 * 2) * (4 * 2) * 16 * 8


def test_stated_boxes_lie_in_the_image_and_are_always_the_same():
    boxes = stated_boxes((320, 427), 1000)
    assert torch.equal(boxes, stated_boxes((320, 427), 1000))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 427).all()
    assert (boxes[:, 3] <= 320).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_the_table_says_what_it_counted():
    text = analysis_table(analyse(OneConv(), (32, 64), num_proposals=7), depth=1)
    assert "1 multiply-add = 2 FLOPs" in text
    assert "32x64" in text
    assert "7 proposals" in text
    assert "216 frozen" in text
    assert "stages" in text
    assert "Conv2d" not in text  # deeper than 1


CONFIG = "configs/bccd/faster_rcnn_R_18_FPN_small.yaml"


def test_the_tool_needs_no_data(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FRCNN_DATASETS", str(tmp_path))
    words = ["analyze-model", "--config-file", CONFIG, "--size", "64x96", "--depth", "1", "--proposals", "10"]
    assert main([*words, "--num-classes", "3"]) == 0
    assert "proposal_generator" in capsys.readouterr().out
    assert main(words) == 2
    assert "--num-classes K" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--size", "800"), ("--size", "8x800"), ("--depth", "0"), ("--num-classes", "0")])
def test_options_that_make_no_sense_are_one_line(capsys, words):
    assert main(["analyze-model", "--config-file", CONFIG, *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {words[0]}")
