"""detectron2's SOLVER and what else a run has, as our optimizer, schedule, trainer and hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frcnn.detectron2.settings import Settings


def optimizer(s: Settings) -> dict[str, Any]:
    """The node `optimizer`."""
    decay, of_biases = s["SOLVER.WEIGHT_DECAY"], s["SOLVER.WEIGHT_DECAY_BIAS"]
    return {
        "name": "SGD",
        "lr": s["SOLVER.BASE_LR"],
        "momentum": s["SOLVER.MOMENTUM"],
        "nesterov": s["SOLVER.NESTEROV"],
        "weight_decay": decay,
        "norm_weight_decay": s["SOLVER.WEIGHT_DECAY_NORM"],
        "bias_weight_decay": None if of_biases == decay else of_biases,
        "reference_batch_size": s["SOLVER.IMS_PER_BATCH"],
    }


def schedule(s: Settings) -> dict[str, Any]:
    """The node `schedule`."""
    warmup = {"warmup": _iterations(s["SOLVER.WARMUP_ITERS"]), "warmup_factor": s["SOLVER.WARMUP_FACTOR"]}
    kind = s["SOLVER.LR_SCHEDULER_NAME"]
    if kind == "WarmupCosineLR":
        s.without_effect("SOLVER.STEPS", "SOLVER.GAMMA")
        return {"name": "WarmupCosine", "final_factor": s["SOLVER.BASE_LR_END"] / s["SOLVER.BASE_LR"], **warmup}
    if kind != "WarmupMultiStepLR":
        s.refuse("SOLVER.LR_SCHEDULER_NAME", "only WarmupMultiStepLR and WarmupCosineLR are translated")
    s.without_effect("SOLVER.BASE_LR_END")
    last = s["SOLVER.MAX_ITER"]
    milestones = [_iterations(step) for step in s["SOLVER.STEPS"] if step <= last]  # detectron2 ignores those behind it
    return {"name": "WarmupMultiStep", "milestones": milestones, "gamma": s["SOLVER.GAMMA"], **warmup}


def trainer(s: Settings) -> dict[str, Any]:
    """The node `trainer`."""
    node: dict[str, Any] = {
        "duration": _iterations(s["SOLVER.MAX_ITER"]),
        "amp": "fp16" if s["SOLVER.AMP.ENABLED"] else "off",
    }
    if not s["SOLVER.CLIP_GRADIENTS.ENABLED"]:
        s.without_effect("SOLVER.CLIP_GRADIENTS.")
    elif s["SOLVER.CLIP_GRADIENTS.CLIP_TYPE"] == "full_model":
        node["clip_grad_norm"] = s["SOLVER.CLIP_GRADIENTS.CLIP_VALUE"]
    else:
        s.refuse(
            "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
            "here the norm of the whole gradient is clipped (trainer.clip_grad_norm), not each parameter's own",
        )
    return node


def hooks(s: Settings) -> dict[str, Any]:
    """The node `hooks`: those that every run has, at detectron2's intervals."""
    period = s["TEST.EVAL_PERIOD"]
    every = _iterations(period) if period else None
    metric = "box_proposals/AR@1000" if s["MODEL.META_ARCHITECTURE"] == "ProposalNetwork" else "bbox/AP"
    precise_bn: dict[str, Any] = {}
    if s["TEST.PRECISE_BN.ENABLED"]:
        batches = s["TEST.PRECISE_BN.NUM_ITER"]
        precise_bn["precise_bn"] = {"name": "PreciseBN", "every": every, "num_batches": batches}
    else:
        s.without_effect("TEST.PRECISE_BN.")
    return {
        "log": {"name": "LogMetrics", "every": "20it"},
        "nan_guard": {"name": "NaNGuard"},
        **precise_bn,
        "evaluate": {"name": "Evaluate", "every": every},
        "best": {"name": "BestCheckpoint", "metric": metric},
        "checkpoint": {"name": "SaveCheckpoint", "every": _iterations(s["SOLVER.CHECKPOINT_PERIOD"])},
    }


def top_level(s: Settings) -> dict[str, Any]:
    """Seed, weights to start from, number of classes, run folder, views of an image when testing."""
    return {
        "seed": max(0, s["SEED"]),
        "output_dir": s.written("OUTPUT_DIR") or f"runs/{Path(s.source).stem}",
        "init_weights": s["MODEL.WEIGHTS"] or None,
        "num_classes": s.written("MODEL.ROI_HEADS.NUM_CLASSES"),
        "test_time_augmentation": _views(s),
    }


def _views(s: Settings) -> dict[str, Any] | None:
    if not s["TEST.AUG.ENABLED"]:
        s.without_effect("TEST.AUG.")
        return None
    return {
        "sizes": s["TEST.AUG.MIN_SIZES"],
        "max_size": s["TEST.AUG.MAX_SIZE"],
        "flip": s["TEST.AUG.FLIP"],
        "iou_threshold": s["MODEL.ROI_HEADS.NMS_THRESH_TEST"],
        "detections_per_image": s["TEST.DETECTIONS_PER_IMAGE"],
    }


def _iterations(number: int) -> str:
    return f"{number}it"
