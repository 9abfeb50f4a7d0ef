"""A small version of every component learns eight images by heart, in whole runs of `frcnn train`.

Each file of overfit/ is a case: a few lines over overfit.yaml, which `tools/train_net.py --config-file` takes too.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from frcnn.cli.main import main
from frcnn.components import register_components
from frcnn.config.plan import Call, DictPlan, ListPlan
from frcnn.config.registry import registries
from frcnn.data.shapes import make_shapes
from frcnn.experiment import read_config

# pycocotools says so for every mask that is decoded.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FOLDER = Path(__file__).parent / "overfit"
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
AP50 = 90
NEEDS = {"timm": "timm"}  # what cannot run where an optional package is missing
# Hooks do not learn, and have tests of their own.
NO_CASE = ("BestCheckpoint", "EMA", "EarlyStop", "PreciseBN", "Profile", "SavePictures", "ValidationLoss")
# The proposals alone, without ROI heads that would correct them: what the best ten of an image recall (AR@10 over IoU 0.5
# to 0.95; the images have up to five objects).
PROPOSALS = ("atss_ohem", "cascade_rpn", "fcos", "focal_rpn", "resnet", "simota_rpn", "task_aligned_rpn")
AR = 70
ALONE = (
    "model.roi_heads=null",
    "model.proposal_generator.post_nms_top_n.test=10",
    "evaluator={name: ProposalEvaluator, limits: [10]}",
)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Eight images with 22 objects, the same with what LVIS wants to know, and proposals for them."""
    folder = tmp_path_factory.mktemp("overfit")
    make_shapes(folder / "eight", num_train=8, num_test=1, image_size=64, seed=5)
    annotations = json.loads((folder / "eight" / "train.json").read_text())
    (folder / "eight" / "proposals.json").write_text(json.dumps(proposals(annotations)))
    for image in annotations["images"]:
        image |= {"neg_category_ids": [1, 2, 3], "not_exhaustive_category_ids": []}
    annotations["categories"] = [{**category, "frequency": "f"} for category in annotations["categories"]]
    (folder / "eight" / "searched.json").write_text(json.dumps(annotations))
    return folder


def proposals(annotations):
    """For every object its box moved by up to 0, 1/8, 1/4 and 3/8 of its side, and for every image ten random boxes."""
    rng = np.random.default_rng(0)
    found = []
    for annotation in annotations["annotations"]:
        x, y, w, h = annotation["bbox"]
        for eighths in range(4):
            dx, dy = rng.uniform(-w / 8, w / 8, 2) * eighths
            found.append({"image_id": annotation["image_id"], "bbox": [x + dx, y + dy, w, h], "score": 1.0})
    for image in annotations["images"]:
        for side in rng.uniform(8, 30, 10):
            x, y = rng.uniform(0, 64 - side, 2)
            found.append({"image_id": image["id"], "bbox": [x, y, side, side], "score": 0.5})
    return found


@pytest.fixture
def evaluated(eight, monkeypatch, tmp_path):
    """Trains a case and returns the metrics of its last evaluation."""
    monkeypatch.setenv("FRCNN_DATASETS", str(eight))

    def run(case, *words):
        if case in NEEDS:
            pytest.importorskip(NEEDS[case])
        file, folder = str(FOLDER / f"{case}.yaml"), tmp_path / "run"
        assert main(["train", "--config-file", file, "--output-dir", str(folder), *words]) == 0
        return json.loads((folder / "evaluation.json").read_text())

    return run


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_eight_images_are_learnt_by_heart(evaluated, case):
    found = {name: value for name, value in evaluated(case).items() if name.endswith("/AP50")}
    assert found
    assert min(found.values()) >= AP50, found


@pytest.mark.slow
@pytest.mark.parametrize("case", PROPOSALS)
def test_the_proposals_alone_find_the_objects(evaluated, case):
    assert evaluated(case, *ALONE)["val/box_proposals/AR@10"] >= AR


def components_of(plan):
    """The classes of all components that a config names."""
    if isinstance(plan, Call):
        inside = plan.options.values()
        return {plan.target}.union(*map(components_of, inside))
    inside = plan.items if isinstance(plan, ListPlan) else plan.entries.values() if isinstance(plan, DictPlan) else ()
    return set().union(*map(components_of, inside))


def test_every_component_is_in_a_case():
    register_components()
    components = {c for registry in registries() for c in registry.components.values() if in_frcnn(c)}
    used = set().union(*(components_of(read_config(FOLDER / f"{case}.yaml").plan) for case in CASES))
    used |= components_of(read_config(FOLDER / f"{PROPOSALS[0]}.yaml", ALONE).plan)
    missing = {component.__name__ for component in components - used}
    assert missing == set(NO_CASE), "write a case into tests/e2e/overfit/, or say in NO_CASE why there is none"


def in_frcnn(component):
    """Whether it is one of ours, and not of a project's file that another test of this process has imported."""
    return component.__module__.startswith("frcnn.") and not component.__module__.startswith("frcnn.config.imports.")
