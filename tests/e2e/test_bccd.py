"""Real images: blood cells, where they are there. Annotation 2288 is a box of 1x1 pixels."""

import os
from pathlib import Path

import pytest
import torch

from frcnn.assembly import build_model
from frcnn.data.collate import pack
from frcnn.engine.trainer import total_loss
from frcnn.experiment import read_config
from frcnn.precision import autocast

ROOT = Path(__file__).parent.parent.parent
PLACES = [Path(os.environ.get("FRCNN_DATASETS", "datasets")), ROOT.parent / "shared" / "datasets"]
DATASETS = next((place for place in PLACES if (place / "bccd" / "train.json").exists()), None)
pytestmark = pytest.mark.skipif(
    DATASETS is None, reason="no bccd/train.json under FRCNN_DATASETS or ../shared/datasets"
)

SMALL = ("data.train.transforms=[{name: ResizeShortestEdge, sizes: [96], max_size: 192}]", "model.backbone.norm=GN")


@pytest.fixture(scope="module")
def bccd():
    before = os.environ.get("FRCNN_DATASETS")
    os.environ["FRCNN_DATASETS"] = str(DATASETS)
    yield read_config(ROOT / "configs" / "bccd" / "faster_rcnn_R_18_FPN_small.yaml", SMALL).build()
    os.environ.pop("FRCNN_DATASETS") if before is None else os.environ.update(FRCNN_DATASETS=before)


def test_the_data_set_is_read_as_published(bccd):
    train, val = bccd.data.train.dataset, bccd.data.test["val"].dataset
    assert (len(train), len(val)) == (205, 87)
    assert [category.name for category in train.categories] == ["RBC", "WBC", "Platelets"]
    assert sum(len(train.load().targets(i)[0]) for i in range(len(train))) == 2805


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_box_of_one_pixel_trains_in_every_precision(bccd, amp):
    dataset = bccd.data.train.dataset
    store = dataset.load()
    sides = [(store.targets(i)[0][:, 2:] - store.targets(i)[0][:, :2]).min() for i in range(len(dataset))]
    smallest = int(torch.tensor(sides).argmin())
    assert sides[smallest] == 1
    sample = dataset[smallest]
    for transform in bccd.data.train.transforms:
        sample = transform(sample, None, None)
    batch = pack([sample, sample], with_targets=True).unpack()
    model = build_model(bccd, dataset.categories, torch.device("cpu")).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(2):
        with autocast(amp, torch.device("cpu")):
            losses = model(batch).losses
        assert all(torch.isfinite(value) for value in losses.values()), losses
        optimizer.zero_grad()
        total_loss(losses).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
