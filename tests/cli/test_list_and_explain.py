"""What `frcnn list` and `frcnn explain` say, and that the page of all components is not stale."""

import subprocess
import sys
from pathlib import Path

import pytest

from frcnn.cli.main import main
from frcnn.components import register_components
from frcnn.config import registries

ROOT = Path(__file__).parents[2]
# What a config may count on.
NAMES = """
ResNet ResNeXt RegNet MobileNetV2 MobileNetV3 EfficientNet ConvNeXt SwinTransformer ViT TorchvisionBackbone
TimmBackbone FPN PAFPN BiFPN BFP SimpleFeaturePyramid IoUMatcher ATSSMatcher SimOTAMatcher HungarianMatcher
BalancedPositiveNegativeSampler OHEMSampler IoUBalancedSampler InstanceBalancedSampler AllSampler
RegionProposalNetwork PrecomputedProposals StandardROIHeads Res5ROIHeads CascadeROIHeads DoubleHeadROIHeads
DynamicROIHeads MaskBranch KeypointBranch ROIPool ROIAlign GRoIE TwoMLPHead ConvBoxHead FastRCNNPredictor L1Loss
SmoothL1Loss BalancedL1Loss IoULoss GIoULoss DIoULoss CIoULoss SoftmaxCrossEntropy SigmoidFocalLoss SeesawLoss NMS
SoftNMS
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_every_promised_name_exists_once(name):
    register_components()
    assert len([registry for registry in registries() if name in registry.components]) == 1


def listed(*words):
    """What `frcnn list` prints in a process of its own, where no other test has registered anything."""
    command = [sys.executable, "-m", "frcnn", "list", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_list_names_every_registry():
    printed = listed()
    assert "MATCHERS\n    ATSSMatcher, " in printed
    assert "NMS_METHODS\n    NMS, SoftNMS\n" in printed


@pytest.mark.parametrize("word", ["MATCHERS", "Matcher", "matchers"])
def test_list_one_registry(capsys, word):
    assert main(["list", word]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("MATCHERS: () | (candidates, targets) -> Matches.")
    assert "(left of |: what the parent passes when it builds the part; right of it: the call)\n" in printed
    assert "    IoUMatcher: " in printed


def test_list_shows_a_project(capsys):
    assert main(["list", "MATCHERS", "--imports", str(ROOT / "projects/topk_matcher/topk_matcher.py")]) == 0
    assert "TopKMatcher: Labels the k candidates" in capsys.readouterr().out


def test_explain(capsys):
    assert main(["explain", "GIoULoss"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("GIoULoss: a BoxLoss of BOX_LOSSES (frcnn/modeling/")
    assert "in YAML:  {name: GIoULoss}" in printed
    assert "  loss_weight: float, default 1.0" in printed


@pytest.mark.parametrize("name", ["Postprocess", "BoxCoder", "TrainTest", "CascadeStage", "Deformable"])
def test_explain_a_type_that_options_take(capsys, name):
    assert main(["explain", name]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: a type of options (frcnn/")
    assert f"### {name}\n" in (ROOT / "docs" / "components.md").read_text(encoding="utf-8")


def test_a_type_names_its_options_and_where_it_is_taken(capsys):
    assert main(["explain", "deformable"]) == 0
    printed = capsys.readouterr().out
    assert "ResNet.deformable" in printed
    assert "in YAML, without a name:  {stages: " in printed
    assert "  modulated: bool, default " in printed


def test_capitals_do_not_matter(capsys):
    assert main(["explain", "atssmatcher"]) == 0
    assert capsys.readouterr().out.startswith("ATSSMatcher: a Matcher of MATCHERS (")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "ATSSMatcher"], "'ATSSMatcher' is a component, not a registry: `frcnn explain ATSSMatcher`"),
        (["explain", "Matcher"], "'Matcher' is a role, not a component: `frcnn list MATCHERS`"),
        (["list", "MACHTERS"], "there is no registry 'MACHTERS'; did you mean 'MATCHERS'? choices: "),
        (["train", "--help", "MATCHERS"], "'MATCHERS' is a role, not a key of a config: `frcnn list MATCHERS`"),
        (["list", "--markdown", "NECKS"], "--markdown is the page of all registries"),
        (["explain", "ATTSMatcher"], "no component is called 'ATTSMatcher'; did you mean 'ATSSMatcher'?"),
    ],
)
def test_mistakes_are_one_line(capsys, words, message):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_the_page_of_components_is_not_stale():
    written = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    assert written == listed("--markdown"), "docs/components.md is stale: frcnn list --markdown > docs/components.md"


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "frcnn", "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
