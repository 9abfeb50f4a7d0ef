"""Evaluating a detector on every named test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from frcnn import distributed
from frcnn.data.roles import Dataset
from frcnn.errors import UserError
from frcnn.evaluation.inference import run_inference
from frcnn.evaluation.roles import EvaluationResult, Evaluator
from frcnn.modeling.roles import Detector
from frcnn.modeling.tta import AugmentedDetector
from frcnn.precision import Amp
from frcnn.structures import Detections


@dataclass(frozen=True)
class TestSet:
    """One named test set: where its images come from and how detections on it are judged.

    Args:
        name: its key under `data.test`.
        dataset: its images and ground truth.
        loader: gives each image once over all processes.
        evaluator: turns detections into metrics.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    name: str
    dataset: Dataset
    loader: Any
    evaluator: Evaluator


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation gave, set by set.

    Args:
        results: set -> its metrics and tables.
        detections: set -> image id -> detections; empty on processes other than the main one.
        losses: set -> mean losses; empty unless they were asked for.
    """

    results: Mapping[str, EvaluationResult]
    detections: Mapping[str, Mapping[int, Detections]]
    losses: Mapping[str, Mapping[str, float]]

    @property
    def metrics(self) -> dict[str, float | None]:
        """`set/metric` -> value in 0..100; where losses were computed, `set/loss` (the total) and `set/loss_...`."""
        flat = {
            f"{name}/{key}": value for name, result in self.results.items() for key, value in result.metrics.items()
        }
        return flat | named_losses(self.losses)

    def find(self, metric: str) -> float | None:
        """A metric by `set/metric`, or by `metric` alone: then of the first set.

        Raises:
            UserError: there is none; the message lists all.
        """
        metrics = self.metrics
        for name in (metric, *(f"{name}/{metric}" for name in self.results)):
            if name in metrics:
                return metrics[name]
        raise UserError(f"no metric is called {metric!r}; there are: {', '.join(metrics)}")


def named_losses(losses: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`set/loss`, the total, and `set/loss_...` of the losses of each set."""
    named = {}
    for name, values in losses.items():
        named[f"{name}/loss"] = sum(value for key, value in values.items() if key.startswith("loss"))
        named |= {f"{name}/{key}": value for key, value in values.items()}
    return named


def check_evaluators(model: nn.Module, test_sets: Sequence[TestSet]) -> None:
    """Asks every evaluator whether the model and its data set have what it measures, before anything runs.

    Args:
        model: a detector; of another module nobody knows what it gives.
        test_sets: the sets.

    Raises:
        UserError: an evaluator asks for what the model or its data set lacks.
    """
    detector = model.detector if isinstance(model, AugmentedDetector) else model
    if isinstance(detector, Detector):
        for test_set in test_sets:
            _require_classes(detector, test_set.evaluator)
            test_set.evaluator.check(detector.detection_fields)


def _require_classes(detector: Detector, evaluator: Evaluator) -> None:
    if evaluator.compares_classes and not detector.tells_classes_apart:
        raise UserError(
            f"{type(evaluator).__name__} compares classes, and the model finds proposals alone (model.roi_heads: null), which "
            "have none: set evaluator.name=ProposalEvaluator, and hooks.best.metric=box_proposals/AR@100 where the best is kept"
        )


def evaluate(
    model: nn.Module,
    test_sets: Sequence[TestSet],
    device: torch.device,
    amp: Amp,
    *,
    with_losses: bool = False,
    weights_loaded: bool | None = None,
) -> Evaluation:
    """Runs the detector over every test set and judges what it finds.

    Args:
        model: a detector, not wrapped for distributed training.
        test_sets: the sets, in order.
        device: where the model is.
        amp: precision of the forward pass.
        with_losses: whether the losses on the test sets are computed too.
        weights_loaded: whether the weights come from training; tells a diagnosis of a low AP what to suspect.

    Returns:
        the evaluation; metrics are the same on every process.

    Raises:
        UserError: an evaluator asks for what the model or its data set lacks.
    """
    check_evaluators(model, test_sets)
    distributed.broadcast_buffers(model)
    results, detections, losses = {}, {}, {}
    for test_set in test_sets:
        inference = run_inference(model, test_set.loader, device, amp=amp, with_losses=with_losses)
        result = None
        if distributed.is_main():
            result = test_set.evaluator(inference.detections, weights_loaded=weights_loaded)
        results[test_set.name] = distributed.broadcast_object(result)
        detections[test_set.name] = inference.detections
        if with_losses:
            losses[test_set.name] = inference.losses
    return Evaluation(results, detections, losses)


def evaluate_losses(
    model: nn.Module, test_sets: Sequence[TestSet], device: torch.device, amp: Amp
) -> dict[str, dict[str, float]]:
    """The mean losses on every test set, without judging what was detected.

    Args:
        model: a detector, not wrapped for distributed training.
        test_sets: the sets, in order.
        device: where the model is.
        amp: precision of the forward pass.

    Returns:
        set -> name -> loss, the same on every process.
    """
    distributed.broadcast_buffers(model)
    return {
        test_set.name: run_inference(model, test_set.loader, device, amp=amp, with_losses=True).losses
        for test_set in test_sets
    }
