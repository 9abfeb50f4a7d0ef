"""detectron2's DATASETS, DATALOADER and INPUT as our `data`, and the evaluator that they ask for."""

from __future__ import annotations

from typing import Any

from frcnn.detectron2.settings import Settings

_SPLITS = {
    **{
        f"coco_{year}_{split}": f"coco/annotations/instances_{split}{year}.json"
        for year, split in (("2014", "train"), ("2014", "val"), ("2017", "train"), ("2017", "val"))
    },
    **{
        f"keypoints_coco_{year}_{split}": f"coco/annotations/person_keypoints_{split}{year}.json"
        for year, split in (("2014", "train"), ("2014", "val"), ("2017", "train"), ("2017", "val"))
    },
    "lvis_v1_train": "lvis/lvis_v1_train.json",
    "lvis_v1_val": "lvis/lvis_v1_val.json",
}
"""detectron2's name of a data set -> its annotations, laid out as detectron2 has it below DETECTRON2_DATASETS."""


def data(s: Settings) -> dict[str, Any]:
    """The node `data`."""
    train_sets, test_sets = s["DATASETS.TRAIN"], s["DATASETS.TEST"]
    if not train_sets:
        s.refuse("DATASETS.TRAIN", "no data set is named; add DATASETS to the file")
    if not reads_proposals(s):
        s.without_effect("DATASETS.PROPOSAL_FILES_", "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_")
    options = _train_options(s)
    sets = [
        _dataset(s, "DATASETS.TRAIN", name, {**options, **proposals})
        for name, proposals in zip(train_sets, _proposals(s, "TRAIN"), strict=True)
    ]
    train: dict[str, Any] = {
        "dataset": sets[0] if len(sets) == 1 else {"name": "ConcatDataset", "datasets": sets},
        "transforms": _train_transforms(s),
        "batch_size": s["SOLVER.IMS_PER_BATCH"],
        "num_workers": s["DATALOADER.NUM_WORKERS"],
        "aspect_ratio_grouping": s["DATALOADER.ASPECT_RATIO_GROUPING"],
    }
    if (sampler := _image_sampler(s)) is not None:
        train["image_sampler"] = sampler
    asked = {"keypoints": True} if s["MODEL.KEYPOINT_ON"] else {}
    test = {
        name: {"dataset": _dataset(s, "DATASETS.TEST", name, {**asked, **proposals}), "transforms": _test_transforms(s)}
        for name, proposals in zip(test_sets, _proposals(s, "TEST"), strict=True)
    }
    return {"train": train, "test": test}


def evaluator(s: Settings) -> dict[str, Any]:
    """The node `evaluator`: of proposals where there is nothing else, LVIS's for LVIS, COCO's for all others."""
    if s["MODEL.META_ARCHITECTURE"] == "ProposalNetwork":
        return {"name": "ProposalEvaluator"}
    tasks = ["bbox", *(["segm"] if s["MODEL.MASK_ON"] else []), *(["keypoints"] if s["MODEL.KEYPOINT_ON"] else [])]
    if any(name.startswith("lvis") for name in s["DATASETS.TEST"]):
        return {"name": "LVISEvaluator", "tasks": tasks}
    sigmas = s["TEST.KEYPOINT_OKS_SIGMAS"]
    return {"name": "CocoEvaluator", "tasks": tasks, **({"oks_sigmas": sigmas} if sigmas else {})}


def reads_proposals(s: Settings) -> bool:
    """Whether proposals come with the images, and no part of the model makes any."""
    return s["MODEL.LOAD_PROPOSALS"] and s["MODEL.PROPOSAL_GENERATOR.NAME"] == "PrecomputedProposals"


def _proposals(s: Settings, split: str) -> list[dict[str, Any]]:
    """The options of each data set that say where its proposals are."""
    sets = s[f"DATASETS.{split}"]
    if not reads_proposals(s):
        return [{}] * len(sets)
    files, top_n = s[f"DATASETS.PROPOSAL_FILES_{split}"], s[f"DATASETS.PRECOMPUTED_PROPOSAL_TOPK_{split}"]
    if len(files) != len(sets):
        s.refuse(f"DATASETS.PROPOSAL_FILES_{split}", f"expected one for each of the {len(sets)} data sets")
        return [{}] * len(sets)
    return [{"proposals": file, "proposals_top_n": top_n} for file in files]


def _train_options(s: Settings) -> dict[str, Any]:
    drop = s["DATALOADER.FILTER_EMPTY_ANNOTATIONS"]
    # COCO has two boxes without width or height, which detectron2 drops without a word.
    options: dict[str, Any] = {"images_without_objects": "drop" if drop else "keep", "on_bad_annotation": "skip"}
    if s["MODEL.MASK_ON"]:
        options["masks"] = True
    if s["MODEL.KEYPOINT_ON"]:
        options["keypoints"] = True
        options["min_keypoints_per_image"] = s["MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE"]
    return options


def _dataset(s: Settings, key: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    if name not in _SPLITS:
        s.refuse(
            key,
            f"the data set {name!r} is not known; known are {', '.join(_SPLITS)}. For another, say "
            f"--leave-out {key}, and put its paths into the result by hand",
        )
        return {"name": "CocoDataset", "annotations": f"{name}.json", "images": name, **options}
    split = name.rpartition("_")[2]
    year = "2014" if "2014" in name else "2017"
    images = "coco" if name.startswith("lvis") else f"coco/{split}{year}"  # LVIS says the folder of each image
    return {"name": "CocoDataset", "annotations": _SPLITS[name], "images": images, **options}


def _image_sampler(s: Settings) -> dict[str, Any] | None:
    name = s["DATALOADER.SAMPLER_TRAIN"]
    if name == "RepeatFactorTrainingSampler":
        return {"name": "RepeatFactorSampler", "threshold": s["DATALOADER.REPEAT_THRESHOLD"]}
    if name != "TrainingSampler":
        s.refuse("DATALOADER.SAMPLER_TRAIN", "only TrainingSampler and RepeatFactorTrainingSampler are translated")
    s.without_effect("DATALOADER.REPEAT_THRESHOLD")
    return None


def _train_transforms(s: Settings) -> list[dict[str, Any]]:
    sizes, sampling = s["INPUT.MIN_SIZE_TRAIN"], s["INPUT.MIN_SIZE_TRAIN_SAMPLING"]
    resize: dict[str, Any] = {
        "name": "ResizeShortestEdge",
        "sizes": sizes if isinstance(sizes, tuple) else (sizes,),
        "max_size": s["INPUT.MAX_SIZE_TRAIN"],
    }
    if sampling != "choice":
        resize["sampling"] = sampling
    flip = s["INPUT.RANDOM_FLIP"]
    if flip not in ("horizontal", "none"):
        s.refuse("INPUT.RANDOM_FLIP", "only horizontal and none are translated")
    return [*_crop(s), resize, *([{"name": "RandomHorizontalFlip"}] if flip == "horizontal" else [])]


def _crop(s: Settings) -> list[dict[str, Any]]:
    if not s["INPUT.CROP.ENABLED"]:
        s.without_effect("INPUT.CROP.")
        return []
    kind = s["INPUT.CROP.TYPE"]
    if kind not in ("absolute", "relative", "relative_range"):
        s.refuse("INPUT.CROP.TYPE", "only absolute, relative and relative_range are translated")
    return [{"name": "RandomCrop", "size": s["INPUT.CROP.SIZE"], "mode": kind}]


def _test_transforms(s: Settings) -> list[dict[str, Any]]:
    size, longest = s["INPUT.MIN_SIZE_TEST"], s["INPUT.MAX_SIZE_TEST"]
    return [{"name": "ResizeShortestEdge", "sizes": (size,), "max_size": longest}] if size else []
