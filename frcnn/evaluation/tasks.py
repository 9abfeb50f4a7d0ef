"""What an evaluator compares, and what a detector must give for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from frcnn.errors import UserError

FIELD_OF_TASK: Mapping[str, str] = {"segm": "masks", "keypoints": "keypoints"}
BRANCH_OF_FIELD: Mapping[str, str] = {"masks": "MaskBranch", "keypoints": "KeypointBranch"}


def check_tasks(tasks: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises ValueError unless the tasks are some of the allowed ones, each once."""
    if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(allowed):
        raise ValueError(f"tasks must be one or more of {', '.join(allowed)}, each once, got {list(tasks)}")


def require_fields(tasks: Sequence[str], detection_fields: Collection[str]) -> None:
    """Raises UserError where a task needs what the detector does not give."""
    for task in tasks:
        field = FIELD_OF_TASK.get(task)
        if field is not None and field not in detection_fields:
            raise UserError(
                f"evaluator.tasks asks for {task}, but the model gives no {field}: add a branch such as"
                f" {{name: {BRANCH_OF_FIELD[field]}}} under model.roi_heads.branches, or leave {task} out of the tasks"
            )
