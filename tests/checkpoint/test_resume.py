"""Which run can go on, and with which config."""

from __future__ import annotations

from pathlib import Path

import pytest

from frcnn.checkpoint.config_changes import config_changes
from frcnn.checkpoint.resume import last_checkpoint, load_to_resume, require_same_config, set_later_aside
from frcnn.checkpoint.save import checkpoint_path, save_checkpoint
from frcnn.errors import UserError

CONFIG = """
data:
  train: {dataset: {name: CocoDataset, annotations: a.json}, batch_size: 16, transforms: [{name: Flip, p: 0.5}], num_workers: 2}
  test: {val: {batch_size: 1}}
optimizer: {name: SGD, lr: 0.001, momentum: 0.9}
trainer: {duration: 40it, amp: 'off'}
hooks:
  log: {name: LogMetrics, every: 20it}
  stop: {name: EarlyStop, patience: 5}
output_dir: runs/a
imports: [/here/a.py]
seed: 0
init_weights: null
"""


def save_run(folder: Path, iteration: int, **more: object) -> Path:
    path = checkpoint_path(folder, iteration)
    save_checkpoint(path, {"iteration": iteration, "max_iterations": 10, "model": {}, "config": CONFIG, **more})
    return path


def changed(*replacements: tuple[str, str]) -> str:
    text = CONFIG
    for before, now in replacements:
        assert before in text
        text = text.replace(before, now)
    return text


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint to resume from: .* holds no checkpoint"):
        last_checkpoint(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint to resume from: .* does not exist"):
        last_checkpoint(tmp_path / "absent")
    _, second = save_run(tmp_path, 5), save_run(tmp_path, 7)
    assert last_checkpoint(tmp_path) == second


def test_a_run_under_way_a_finished_one_and_one_of_another_length(tmp_path: Path) -> None:
    assert load_to_resume(save_run(tmp_path, 5), 10)["iteration"] == 5
    with pytest.raises(UserError, match="its run is 10 iterations long and the config asks for 20"):
        load_to_resume(save_run(tmp_path, 5), 20)
    with pytest.raises(UserError, match=r"the run is finished \(10 of 10 iterations\)"):
        load_to_resume(save_run(tmp_path, 10), 10)


def test_a_run_that_was_stopped_early_says_why(tmp_path: Path) -> None:
    assert load_to_resume(save_run(tmp_path, 5, stop_reason=None), 10)["iteration"] == 5
    with pytest.raises(
        UserError, match=r"stopped early, at iteration 5 of 10: bbox/AP has not improved; nothing is left"
    ):
        load_to_resume(save_run(tmp_path, 5, stop_reason="bbox/AP has not improved"), 10)


def test_a_checkpoint_to_predict_with_is_not_resumed(tmp_path: Path) -> None:
    save_checkpoint(checkpoint_path(tmp_path, 1), {"model": {}, "iteration": 1})
    with pytest.raises(UserError, match="and not the state of a run to resume"):
        load_to_resume(checkpoint_path(tmp_path, 1), 10)


def test_every_change_of_the_training_is_refused_with_both_values() -> None:
    now = changed(
        ("lr: 0.001", "lr: 5.0e-05"), ("batch_size: 16", "batch_size: 8"), ("p: 0.5", "p: 0.1"), ("seed: 0", "seed: 3")
    )
    with pytest.raises(UserError) as caught:
        require_same_config({"config": CONFIG}, now, Path("c.pth"))
    assert str(caught.value).splitlines() == [
        "c.pth: cannot go on with another config than its own",
        "  data.train.batch_size: 16 in the checkpoint, 8 now",
        "  data.train.transforms.0.p: 0.5 in the checkpoint, 0.1 now",
        "  optimizer.lr: 0.001 in the checkpoint, 5.0e-05 now",
        "  seed: 0 in the checkpoint, 3 now",
        "set them back to resume, or start a new run with --init-weights c.pth",
    ]


@pytest.mark.parametrize(
    ("before", "now", "shown"),
    [
        (
            "{name: SGD, lr: 0.001, momentum: 0.9}",
            "{name: AdamW, lr: 1}",
            "optimizer.name: SGD in the checkpoint, AdamW now",
        ),
        ("[{name: Flip, p: 0.5}]", "[]", "data.train.transforms: [Flip] in the checkpoint, [] now"),
        ("patience: 5", "patience: 9", "hooks.stop.patience: 5 in the checkpoint, 9 now"),
        ("name: EarlyStop", "name: LogMetrics", "hooks.stop.name: EarlyStop in the checkpoint, LogMetrics now"),
        ("seed: 0\n", "seed: 0\nnum_classes: 3\n", "num_classes: nothing in the checkpoint, 3 now"),
    ],
)
def test_what_was_replaced_added_or_left_out_is_refused(before: str, now: str, shown: str) -> None:
    with pytest.raises(UserError, match="cannot go on with another config") as caught:
        require_same_config({"config": CONFIG}, changed((before, now)), Path("c.pth"))
    assert f"\n  {shown}\n" in str(caught.value)


def test_what_does_not_change_the_training_may_change() -> None:
    now = changed(
        ("num_workers: 2", "num_workers: 0"),
        ("val: {batch_size: 1}", "minival: {batch_size: 1}"),
        ("every: 20it", "every: 5it"),
        ("runs/a", "runs/b"),
        ("/here/a.py", "imports/a.py"),
        ("init_weights: null", "init_weights: w.pth"),
        ("  stop:", "  pictures: {name: SavePictures}\n  stop:"),
    )
    keys = [change.key for change in require_same_config({"config": CONFIG}, now, Path("c.pth"))]
    assert keys == [
        "data.train.num_workers",
        "data.test.val",
        "data.test.minival",
        "hooks.log.every",
        "hooks.pictures",
        "output_dir",
        "init_weights",
    ]
    assert config_changes(CONFIG, CONFIG) == []


def test_checkpoints_behind_the_one_to_go_on_from_are_set_aside(tmp_path: Path) -> None:
    first, second, third = (save_run(tmp_path, iteration) for iteration in (1, 2, 3))
    assert set_later_aside(third) == []
    assert set_later_aside(first) == [Path(f"{second}.old"), Path(f"{third}.old")]
    assert last_checkpoint(tmp_path) == first
