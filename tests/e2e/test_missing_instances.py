"""A model that learns masks, keypoints or from given proposals, and data that bring none: one line before training starts."""

from pathlib import Path

import pytest

from frcnn.data.shapes import make_shapes

TINY = Path(__file__).parent / "tiny.yaml"
BRANCH = "in_features: [p2, p3], pooler: {name: ROIAlign, resolution: 7, sampling_ratio: 1}"
PARTS = {
    "masks": f"roi_heads: {{branches: {{mask: {{name: MaskBranch, {BRANCH}, num_convs: 1, conv_channels: 8}}}}}}",
    "keypoints": f"roi_heads: {{branches: {{keypoint: {{name: KeypointBranch, {BRANCH}, num_keypoints: 5}}}}}}",
    "proposals": "proposal_generator: {name: PrecomputedProposals, top_n: {train: 100, test: 100}}",
}


@pytest.fixture
def train(frcnn, tmp_path):
    """Runs a few steps of the tiny config with a part of PARTS, and returns (exit code, stderr)."""
    make_shapes(tmp_path / "shapes", num_train=8, num_test=2, image_size=64, seed=0)

    def run(part, *words):
        config = tmp_path / "config.yaml"
        imports = f"imports: [{TINY.with_name('tiny_backbone.py')}]"
        config.write_text(f"_BASE_: {TINY}\n{imports}\nmodel: {{{PARTS[part]}}}\n")
        data = []
        for split, name in (("train", "train"), ("test.val", "test")):
            data += [f"data.{split}.dataset.annotations={tmp_path / 'shapes' / name}.json"]
            data += [f"data.{split}.dataset.images={tmp_path / 'shapes' / 'images'}", f"data.{split}.num_workers=0"]
        hooks = ["hooks.pictures=null", "hooks.checkpoint=null", "trainer.duration=2it"]
        code, _, err = frcnn("train", "--config-file", config, "--output-dir", tmp_path / "run", *data, *hooks, *words)
        return code, err

    return run


@pytest.mark.parametrize("part", PARTS)
def test_what_the_data_lack_is_told_with_the_option_that_gives_it(train, tmp_path, part):
    code, err = train(part)
    assert code == 2, err
    value = "FILE" if part == "proposals" else "true"
    assert f"error: the model needs {part}, which data.train.dataset does not give" in err
    assert f"set data.train.dataset.{part}={value}, or take the part that needs them out of the model" in err
    assert not (tmp_path / "run").exists()


def test_a_transform_that_reads_masks_says_so_before_training(train, tmp_path):
    code, err = train("keypoints", "data.train.dataset.keypoints=true", "data.train.transforms=[{name: CopyPaste}]")
    assert code == 2, err
    assert (
        "error: CopyPaste needs masks, which data.train.dataset does not give; set data.train.dataset.masks=true" in err
    )
    assert "or take it out of the transforms" in err
    assert not (tmp_path / "run").exists()


def test_another_number_of_keypoints_is_told_before_training(train, tmp_path):
    branch = "model.roi_heads.branches.keypoint"
    code, err = train("keypoints", "data.train.dataset.keypoints=true", f"{branch}.num_keypoints=17")
    assert code == 2, err
    assert "error: KeypointBranch has num_keypoints: 17, and the categories of data.train.dataset have 5\n" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["masks", "keypoints"])
def test_with_the_option_it_trains_and_validates(train, tmp_path, part):
    code, err = train(part, f"data.train.dataset.{part}=true")
    assert code == 0, err
    assert f"loss_{part[:-1]}" in (tmp_path / "run" / "metrics.jsonl").read_text()
