"""Evaluation during training: metrics, validation losses, pictures."""

from __future__ import annotations

import json
import logging

from frcnn import distributed
from frcnn.engine.durations import Duration, require_some
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer
from frcnn.engine.validation import Evaluation, evaluate_losses, named_losses
from frcnn.evaluation.results import save_coco_results
from frcnn.inspect.gallery import save_gallery

logger = logging.getLogger("frcnn")


@HOOKS.register
class Evaluate(Hook):
    """Evaluates on every test set at an interval and at the end.

    The last tables stay in the run folder as evaluation.txt, the metrics as evaluation.json, and the detections of each test set
    as detections_SET.json in COCO's result format.

    Args:
        every: how often; null is at the end only.
        losses: compute the losses on the test sets in the same pass; they are logged as SET/loss and SET/loss_..., and
            BestCheckpoint and EarlyStop can watch them.
    """

    order = 20

    def __init__(self, *, every: Duration | None = Duration(1, "ep"), losses: bool = False) -> None:  # noqa: B008
        require_some("every", every)
        self.every = every
        self.losses = losses

    def between_steps(self, trainer: Trainer) -> None:
        if trainer.is_due(self.every):
            trainer.evaluate(with_losses=self.losses)

    def after_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if not distributed.is_main():
            return
        heading = f"iteration {trainer.iteration}, epoch {trainer.epoch:.2f}"
        tables = [f"{name} ({heading})\n{result.table()}" for name, result in evaluation.results.items()]
        (trainer.folder / "evaluation.txt").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
        record = {"iteration": trainer.iteration, **evaluation.metrics}
        (trainer.folder / "evaluation.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        for test_set in trainer.test_sets:
            path = trainer.folder / f"detections_{test_set.name}.json"
            save_coco_results(path, evaluation.detections[test_set.name], test_set.dataset.categories)


@HOOKS.register
class ValidationLoss(Hook):
    """Computes the losses on the test sets, in eval mode, at an interval. It disturbs nothing: no draw and no statistic.

    It logs SET/loss and its parts, and no hook can watch them: for BestCheckpoint and EarlyStop, set `losses` of Evaluate.

    Args:
        every: how often.
    """

    order = 20

    def __init__(self, *, every: Duration) -> None:
        require_some("every", every)
        self.every = every

    def between_steps(self, trainer: Trainer) -> None:
        if not trainer.is_due(self.every):
            return
        losses = evaluate_losses(trainer.evaluated_model, trainer.test_sets, trainer.device, trainer.options.amp)
        if not distributed.is_main():
            return
        values = named_losses(losses)
        trainer.metrics.write(trainer.iteration, values)
        for name in losses:
            parts = [f"{k.removeprefix('loss_')} {v:.3f}" for k, v in losses[name].items() if k.startswith("loss_")]
            logger.info("%s: loss %.3f (%s)", name, values[f"{name}/loss"], ", ".join(parts))


@HOOKS.register
class SavePictures(Hook):
    """Draws the detections of the last evaluation beside the ground truth, into the run folder's pictures/.

    An interrupted run draws none: whoever interrupts does not want to wait.

    Args:
        num_images: how many images of each test set, spread over it.
        score_thresh: detections below this score are not drawn.
    """

    order = 110  # behind the checkpoint

    def __init__(self, *, num_images: int = 16, score_thresh: float = 0.5) -> None:
        if num_images < 0 or not 0 <= score_thresh <= 1:
            raise ValueError(
                f"num_images must be at least 0 and score_thresh in [0, 1], got {num_images} and {score_thresh}"
            )
        self.num_images = num_images
        self.score_thresh = score_thresh
        self.evaluation: Evaluation | None = None

    def after_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    def after_train(self, trainer: Trainer) -> None:
        if self.evaluation is None or trainer.interrupted or not distributed.is_main():
            return
        for test_set in trainer.test_sets:
            save_gallery(
                trainer.folder / "pictures" / test_set.name,
                test_set.dataset,
                self.evaluation.detections[test_set.name],
                num_images=self.num_images,
                score_thresh=self.score_thresh,
                title=test_set.name,
            )
            logger.info("pictures of detections beside ground truth: %s", trainer.folder / "pictures" / test_set.name)
