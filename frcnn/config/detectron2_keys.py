"""Answers to detectron2's keys: people who come from there type `SOLVER.BASE_LR`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from frcnn.config.problems import ConfigError, Mark, Problem, join
from frcnn.config.tree import MapNode, Node

SECTIONS = frozenset(
    {
        "CUDNN_BENCHMARK",
        "DATALOADER",
        "DATASETS",
        "FLOAT32_PRECISION",
        "GLOBAL",
        "INPUT",
        "MODEL",
        "OUTPUT_DIR",
        "SEED",
        "SOLVER",
        "TEST",
        "VERSION",
        "VIS_PERIOD",
    }
)

OURS = {
    "DATALOADER.ASPECT_RATIO_GROUPING": "data.train.aspect_ratio_grouping",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "data.train.dataset.images_without_objects (drop or keep)",
    "DATALOADER.NUM_WORKERS": "data.train.num_workers",
    "DATALOADER.SAMPLER_TRAIN": "data.train.image_sampler",
    "DATASETS.TEST": "data.test.NAME.dataset",
    "DATASETS.TRAIN": "data.train.dataset",
    "INPUT.FORMAT": "model.channel_order",
    "INPUT.MAX_SIZE_TEST": "max_size of ResizeShortestEdge in data.test.NAME.transforms",
    "INPUT.MAX_SIZE_TRAIN": "max_size of ResizeShortestEdge in data.train.transforms",
    "INPUT.MIN_SIZE_TEST": "sizes of ResizeShortestEdge in data.test.NAME.transforms",
    "INPUT.MIN_SIZE_TRAIN": "sizes of ResizeShortestEdge in data.train.transforms",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "model.proposal_generator.anchor_generator.aspect_ratios",
    "MODEL.ANCHOR_GENERATOR.SIZES": "model.proposal_generator.anchor_generator.sizes",
    "MODEL.BACKBONE.FREEZE_AT": "model.backbone.freeze_at",
    "MODEL.FPN.IN_FEATURES": "model.necks.0.in_features",
    "MODEL.FPN.NORM": "model.necks.0.norm",
    "MODEL.FPN.OUT_CHANNELS": "model.necks.0.out_channels",
    "MODEL.KEYPOINT_ON": "model.roi_heads.branches.keypoint",
    "MODEL.MASK_ON": "model.roi_heads.branches.mask",
    "MODEL.PIXEL_MEAN": "model.pixel_mean (RGB here, BGR there)",
    "MODEL.PIXEL_STD": "model.pixel_std (RGB here, BGR there)",
    "MODEL.PROPOSAL_GENERATOR.NAME": "model.proposal_generator.name",
    "MODEL.RESNETS.DEPTH": "model.backbone.depth",
    "MODEL.RESNETS.NORM": "model.backbone.norm",
    "MODEL.RESNETS.OUT_FEATURES": "model.backbone.out_features",
    "MODEL.RESNETS.STRIDE_IN_1X1": "model.backbone.stride_in_1x1",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "model.roi_heads.box_head.width",
    "MODEL.ROI_BOX_HEAD.NAME": "model.roi_heads.box_head.name",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": "model.roi_heads.pooler.resolution",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": "model.roi_heads.pooler.sampling_ratio",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "model.roi_heads.pooler.name",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "model.roi_heads.sampler.batch_size_per_image",
    "MODEL.ROI_HEADS.IN_FEATURES": "model.roi_heads.in_features",
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": "model.roi_heads.matcher.high_threshold and low_threshold",
    "MODEL.ROI_HEADS.NAME": "model.roi_heads.name",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "model.roi_heads.postprocess.nms.iou_threshold",
    "MODEL.ROI_HEADS.NUM_CLASSES": "num_classes, which may be left out: the data set knows",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": "model.roi_heads.sampler.positive_fraction",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "model.roi_heads.postprocess.score_thresh",
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": "model.roi_heads.branches.keypoint.num_keypoints",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": "model.roi_heads.branches.keypoint.pooler.resolution",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": "model.roi_heads.branches.mask.num_convs",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": "model.roi_heads.branches.mask.pooler.resolution",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": "model.proposal_generator.sampler.batch_size_per_image",
    "MODEL.RPN.IN_FEATURES": "model.proposal_generator.in_features",
    "MODEL.RPN.IOU_THRESHOLDS": "model.proposal_generator.matcher.low_threshold and high_threshold",
    "MODEL.RPN.NMS_THRESH": "model.proposal_generator.nms.iou_threshold",
    "MODEL.RPN.POSITIVE_FRACTION": "model.proposal_generator.sampler.positive_fraction",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "model.proposal_generator.post_nms_top_n.test",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "model.proposal_generator.post_nms_top_n.train",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "model.proposal_generator.pre_nms_top_n.test",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": "model.proposal_generator.pre_nms_top_n.train",
    "MODEL.WEIGHTS": "init_weights",
    "OUTPUT_DIR": "output_dir",
    "SEED": "seed",
    "SOLVER.AMP.ENABLED": "trainer.amp (off, bf16 or fp16)",
    "SOLVER.BASE_LR": "optimizer.lr",
    "SOLVER.CHECKPOINT_PERIOD": "hooks.checkpoint.every",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": "trainer.clip_grad_norm",
    "SOLVER.GAMMA": "schedule.gamma",
    "SOLVER.IMS_PER_BATCH": "data.train.batch_size; optimizer.reference_batch_size says which batch size the lr is for",
    "SOLVER.MAX_ITER": "trainer.duration, such as 90000it",
    "SOLVER.MOMENTUM": "optimizer.momentum",
    "SOLVER.STEPS": "schedule.milestones, such as [60000it, 80000it]",
    "SOLVER.WARMUP_FACTOR": "schedule.warmup_factor",
    "SOLVER.WARMUP_ITERS": "schedule.warmup, such as 1000it",
    "SOLVER.WEIGHT_DECAY": "optimizer.weight_decay",
    "SOLVER.WEIGHT_DECAY_BIAS": "optimizer.bias_weight_decay",
    "SOLVER.WEIGHT_DECAY_NORM": "optimizer.norm_weight_decay",
    "TEST.DETECTIONS_PER_IMAGE": "model.roi_heads.postprocess.detections_per_image",
    "TEST.EVAL_PERIOD": "hooks.evaluate.every, such as 5000it",
}


def answer_detectron2_keys(root: MapNode) -> tuple[MapNode, list[Problem]]:
    """The tree without detectron2's sections, and for each key in them what it is called here.

    Raises:
        ConfigError: the whole file is detectron2's.
    """
    if _is_detectron2s(root):
        file = root.mark.source
        message = f"this is a config of detectron2; `frcnn import-config {file} --output OURS.yaml` writes ours for it"
        raise ConfigError([Problem(Mark(file, 1), "", message)])
    problems = []
    for section in SECTIONS & root.entries.keys():
        for key, mark in _leaves(root.entries[section], section, root.key_marks[section]):
            problems.append(Problem(mark, key, _answer(key)))
        root = root.without(section)
    return root, problems


def _is_detectron2s(root: MapNode) -> bool:
    """Whether the files (not the command line) have sections of detectron2, and no key that is not in capitals."""
    in_files = [key for key in root.entries if root.key_marks[key].line is not None]
    return any(key in SECTIONS for key in in_files) and all(key.isupper() for key in in_files)


def _answer(key: str) -> str:
    if key in OURS:
        return f"this is detectron2's name; here it is {OURS[key]}"
    # Of long dotted keys the beginnings alone make strangers look alike: only the last word may be mistyped.
    section, _, word = key.rpartition(".")
    near = difflib.get_close_matches(
        word, [known.rpartition(".")[2] for known in OURS if known.rpartition(".")[0] == section], n=1, cutoff=0.85
    )
    guess = join(section, near[0]) if near else ""
    likely = f"; the nearest one with a counterpart is '{guess}', here {OURS[guess]}" if guess else ""
    return f"this looks like a key of detectron2, and there is none of that name here{likely}"


def _leaves(node: Node, path: str, mark: Mark) -> Iterator[tuple[str, Mark]]:
    if path in OURS or not (isinstance(node, MapNode) and node.entries):
        yield path, mark
        return
    for key, child in node.entries.items():
        yield from _leaves(child, join(path, key), node.key_marks[key])
