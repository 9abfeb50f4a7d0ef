"""Reading checkpoints, and what a person reads when one cannot be used."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from frcnn.checkpoint.files import read_weights_file
from frcnn.checkpoint.kinds import Kind, detect_kind
from frcnn.checkpoint.load import inference_weights, load_checkpoint, require_same_classes
from frcnn.checkpoint.save import checkpoint_path, save_checkpoint
from frcnn.errors import UserError


def save_run(folder: Path, *iterations: int, of: int = 10) -> None:
    for iteration in iterations:
        state = {"iteration": iteration, "max_iterations": of, "model": {"w": torch.ones(100)}}
        save_checkpoint(checkpoint_path(folder, iteration), state)


@pytest.mark.parametrize("size", [40, 600, 1000, -1])
def test_a_truncated_checkpoint_is_refused_and_the_one_before_it_offered(tmp_path: Path, size: int) -> None:
    save_run(tmp_path, 1, 2, 3)
    last = checkpoint_path(tmp_path, 3)
    os.truncate(last, size if size > 0 else last.stat().st_size - 1)
    with pytest.raises(UserError, match=r"checkpoint_00000003.pth: .*checkpoint to use instead is .*00000002.pth"):
        load_checkpoint(last)
    os.truncate(checkpoint_path(tmp_path, 2), 0)
    with pytest.raises(UserError, match=r"checkpoint_00000003.pth: .*checkpoint to use instead is .*00000001.pth"):
        load_checkpoint(last)


def test_an_empty_checkpoint_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    path.touch()
    with pytest.raises(UserError, match=r"the file is empty$"):
        load_checkpoint(path)


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    save_checkpoint(path, {"model": {"w": torch.full((1000,), 7.0)}})
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(7.0).tobytes() * 10) + 400] ^= 1
    path.write_bytes(content)
    assert (torch.load(path, weights_only=True)["model"]["w"] != 7).any()  # torch alone does not notice
    with pytest.raises(UserError, match=r"checksum of '.*/data/0' in it is wrong"):
        load_checkpoint(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_an_object_that_would_need_code_is_named(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "theirs.pth"
    content = {"model": {}, "args": argparse.Namespace(lr=1)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UserError, match=r"holds 'argparse.Namespace'; loading that would run code"):
        load_checkpoint(path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save(Attack(), tmp_path / "weights.pth")
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(Attack()))
    for name in ("weights.pth", "weights.pkl"):
        with pytest.raises(UserError, match="mkdir"):
            read_weights_file(tmp_path / name)
    assert not (tmp_path / "attacked").exists()


def test_a_web_page_saved_as_weights_shows_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("<!DOCTYPE html><html>sign in")
    with pytest.raises(UserError, match=r"not a file of torch.save; it begins with b'<!DOCTYPE"):
        load_checkpoint(tmp_path / "w.pth")


def test_a_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    save_run(tmp_path, 1, 2)
    with pytest.raises(
        UserError, match=r"no such file; its folder holds checkpoint_00000002.pth, checkpoint_00000001.pth"
    ):
        load_checkpoint(tmp_path / "best.pth")
    with pytest.raises(UserError, match=r"a folder; name one checkpoint in it: checkpoint_00000002.pth"):
        load_checkpoint(tmp_path)


def test_another_frameworks_file_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"backbone.body.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="it looks like the state dict of a torchvision detector; --init-weights"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"it looks like no weights at all$"):
        load_checkpoint(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "frcnn checkpoint", "format_version": 2}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"newer frcnn \(checkpoint version 2; this one reads up to 1\)"):
        load_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("layer1.0.conv1.weight", Kind.TORCHVISION_CLASSIFIER),
        ("module.layer1.0.conv1.weight", Kind.TORCHVISION_CLASSIFIER),
        ("features.0.0.weight", Kind.TORCHVISION_CLASSIFIER),
        ("rpn.head.conv.0.0.weight", Kind.TORCHVISION_DETECTOR),
        ("backbone.bottom_up.stem.conv1.weight", Kind.DETECTRON2),
        ("proposal_generator.rpn_head.conv.weight", Kind.DETECTRON2),
        ("trunk_output.block1.block1-0.proj.0.weight", Kind.TORCHVISION_CLASSIFIER),
        ("encoder.layers.encoder_layer_0.ln_1.weight", Kind.TORCHVISION_CLASSIFIER),
        ("patch_embed.proj.weight", Kind.VIT),
        ("res2_0_branch2a_w", Kind.CAFFE2),
        ("backbone.res2.0.conv1.weight", Kind.STATE_DICT),
        ("proposal_generator.head.convs.0.weight", Kind.STATE_DICT),
    ],
)
def test_kinds_are_told_by_names(name: str, kind: Kind) -> None:
    assert detect_kind({name: torch.zeros(1)}) is kind
    assert detect_kind({"model": {name: torch.zeros(1)}, "epoch": 3}) is kind


def test_a_detectron2_detector_with_shared_names_is_not_taken_for_torchvision() -> None:
    names = ("proposal_generator.rpn_head.conv.weight", "roi_heads.box_predictor.cls_score.weight")
    assert detect_kind({"model": dict.fromkeys(names, torch.zeros(1))}) is Kind.DETECTRON2
    assert detect_kind(dict.fromkeys(names[1:], torch.zeros(1))) is Kind.TORCHVISION_DETECTOR


def test_a_model_zoo_pickle_of_arrays_is_read(tmp_path: Path) -> None:
    big_endian = np.arange(3, dtype=">f4")
    content = {"model": {"a": np.ones((2, 2), np.float32), "b": big_endian}, "__author__": "zoo", "n": np.float32(2)}
    for protocol in (2, 4):
        (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        read = read_weights_file(tmp_path / "R-50.pkl")
        assert torch.equal(read["model"]["a"], torch.ones(2, 2))
        assert read["model"]["b"].tolist() == [0, 1, 2]
        assert read["n"] == 2


def test_other_classes_are_refused_with_both_lists() -> None:
    require_same_classes(["a", "b"], ["a", "b"], "best.pth")
    with pytest.raises(
        UserError, match=r"has 2 classes, and the data set has 1. In the checkpoint: a, b. .*data set: a\."
    ):
        require_same_classes(["a", "b"], ["a"], "best.pth")
    with pytest.raises(UserError, match="in another order"):
        require_same_classes(["a", "b"], ["b", "a"], "best.pth")
    with pytest.raises(UserError, match="not the same ones"):
        require_same_classes(["a", "b"], ["a", "c"], "best.pth")


def test_averaged_weights_are_the_ones_to_predict_with() -> None:
    assert inference_weights({"model": {"w": 1, "v": 2}, "ema": {"w": 3}}) == {"w": 3, "v": 2}
    assert inference_weights({"model": {"w": 1}}) == {"w": 1}
