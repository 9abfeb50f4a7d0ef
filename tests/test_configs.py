"""Every YAML file of the repository is right: it reads, builds without memory or data, and survives its own dump."""

from pathlib import Path

import pytest
import torch
import yaml

from frcnn.assembly import build_model
from frcnn.config import check_components
from frcnn.data.coco import CocoDataset
from frcnn.data.roles import Category
from frcnn.experiment import Config, read_config, register_components

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("configs", "projects")
    for path in (ROOT / folder).rglob("*.yaml")
    if "_base_" not in path.parts
)
BASES = sorted((ROOT / "configs" / "_base_").rglob("*.yaml"))
CATEGORIES = tuple(Category(number, f"class {number}") for number in range(1, 4))


@pytest.fixture(autouse=True)
def _no_data_set(monkeypatch, tmp_path):
    """A file system without data sets, and an error for whoever looks for one."""
    monkeypatch.setenv("FRCNN_DATASETS", str(tmp_path))

    def load(self):
        raise AssertionError(f"{self.annotations} was asked for")

    monkeypatch.setattr(CocoDataset, "load", load)


@pytest.fixture(params=FILES, scope="module")
def file(request):
    return request.param


@pytest.fixture(scope="module")
def config(file):
    return read_config(ROOT / file)


def test_there_are_configs_and_projects():
    assert {path.split("/")[0] for path in FILES} == {"configs", "projects"}


def test_it_starts_with_what_it_is_and_how_to_run_it(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert len(header) >= 2
    assert any(f"--config-file {file}" in line for line in header)


def test_it_builds_on_the_meta_device_without_data(config):
    experiment = config.build()
    with torch.device("meta"):
        model = build_model(experiment, CATEGORIES, torch.device("meta"))
        optimizer = experiment.optimizer(model)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(len(group["params"]) for group in optimizer.param_groups) > 0


def test_its_schedule_has_a_factor_from_the_first_step_to_the_last(config):
    experiment = config.build()
    epoch_length = 1000.0
    total = experiment.trainer.duration.iterations(epoch_length)
    factors = [experiment.schedule(iteration, total, epoch_length) for iteration in (0, total // 2, total - 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] < factors[1]


def test_it_reads_its_own_dump(file, config):
    again = Config.from_text(config.text, file)
    assert again.plan == config.plan
    assert again.text == config.text


def test_no_two_write_to_one_folder():
    folders = [read_config(ROOT / file).build().output_dir for file in FILES]
    assert len(set(folders)) == len(folders)


def test_every_base_is_stood_on_by_something():
    stood_on = set()
    for path in (path for folder in ("configs", "projects") for path in (ROOT / folder).rglob("*.yaml")):
        bases = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader).get("_BASE_", [])
        bases = bases if isinstance(bases, list) else [bases]
        stood_on |= {(path.parent / base).resolve() for base in bases}
    assert {path.resolve() for path in BASES} <= stood_on


def test_every_option_of_every_component_can_be_read():
    register_components()
    check_components()
