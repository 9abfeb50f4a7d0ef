"""Every mistake a person can make, with real broken files: exit code 2, a line that says what to do, and nothing left behind."""

import argparse
import json
import math
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from frcnn.data.images import opencv
from frcnn.data.shapes import make_shapes

ROOT = Path(__file__).parent.parent.parent
TINY = Path(__file__).parent / "tiny.yaml"
IMPORTS = ("--imports", TINY.with_name("tiny_backbone.py"))
QUICK = ("trainer.duration=2it", "hooks.evaluate=null", "hooks.best=null", "hooks.pictures=null")
SET = "data.train.dataset."


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """12 training images with 34 objects; annotation 4 is the first one of image 2."""
    folder = tmp_path_factory.mktemp("shapes")
    make_shapes(folder, num_train=12, num_test=4, image_size=64, seed=0)
    return folder


@pytest.fixture
def train(frcnn, shapes, tmp_path):
    """Runs `frcnn train` on the small set and returns (exit code, stdout, stderr); the run folder is tmp_path/run."""

    def run(*words, config=TINY):
        paths = {"train": shapes / "train.json", "test.val": shapes / "test.json"}
        data = [f"data.{part}.dataset.annotations={path}" for part, path in paths.items()]
        data += [f"data.{part}.dataset.images={shapes / 'images'}" for part in paths]
        data += ["data.train.num_workers=0"]
        given = {str(word).partition("=")[0] for word in words}
        defaults = [word for word in (*QUICK, *data) if word.partition("=")[0] not in given]
        return frcnn("train", "--config-file", config, "--output-dir", tmp_path / "run", *defaults, *words)

    return run


@pytest.fixture
def refused(train, tmp_path):
    """What stderr says of a run that is refused; it must be nothing but the message, and leave no run folder."""

    def run(*words, config=TINY):
        code, _, err = train(*words, config=config)
        assert code == 2, err
        assert err.startswith("error: ")
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()
        return err

    return run


@pytest.fixture
def annotations(shapes, tmp_path):
    """Writes the training annotations after `change(document)`, and returns the override that takes them."""

    def write(change):
        document = json.loads((shapes / "train.json").read_text())
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(change(document) or document))
        return f"{SET}annotations={path}"

    return write


@pytest.fixture
def images(shapes, tmp_path):
    """Copies the images with other bytes (None removes them), and returns the override that takes them."""

    def write(change):
        folder = tmp_path / "changed"
        folder.mkdir()
        for path in sorted((shapes / "images").iterdir()):
            data = change(path.read_bytes())
            if data is not None:
                (folder / path.name).write_bytes(data)
        return f"{SET}images={folder}"

    return write


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shapes):
    """A run of two iterations with both its checkpoints."""
    from frcnn.cli.main import main

    folder = tmp_path_factory.mktemp("runs") / "run"
    data = [f"data.{s}.dataset.images={shapes / 'images'}" for s in ("train", "test.val")]
    data += [f"{SET}annotations={shapes / 'train.json'}", f"data.test.val.dataset.annotations={shapes / 'test.json'}"]
    words = ["--config-file", str(TINY), "--output-dir", str(folder), *QUICK, *data]
    assert main(["train", *words, "hooks.checkpoint.every=1it", "hooks.checkpoint.keep=3"]) == 0
    return folder


# ---- the config


def test_every_mistake_of_a_yaml_and_the_command_line_is_told_at_once(refused, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        f"_BASE_: {TINY}\n"
        "modle: {}\n"
        "model:\n"
        "  proposal_generator:\n"
        "    matcher: {name: ATTSMatcher}\n"
        "  roi_heads:\n"
        "    sampler: {batch_size_per_image: 512.5}\n"
    )
    told = refused("model.roi_heads.pooler.resolutoin=14", config=path)
    told = re.sub("(choices: ATSSMatcher).*(, IoUMatcher).*;", r"\1\2;", told)  # and all the others that there are
    assert told.splitlines() == [
        f"error: {path}:2: modle: the config has no option 'modle'; did you mean 'model'?",
        f"{path}:5: model.proposal_generator.matcher.name: no Matcher is called 'ATTSMatcher'",
        "    did you mean 'ATSSMatcher'? choices: ATSSMatcher, IoUMatcher; a component of a project also needs its file "
        "under 'imports:'",
        f"{path}:7: model.roi_heads.sampler.batch_size_per_image: expected int, got '512.5'",
        "command line 'model.roi_heads.pooler.resolutoin=14': ROIAlign has no option 'resolutoin'; did you mean 'resolution'?",
    ]


def test_a_number_for_each_class_is_checked_against_the_classes_of_the_data(refused):
    loss = "model.roi_heads.box_predictor.class_loss={name: SoftmaxCrossEntropy, class_weights: [1, 1, 1, %s]}"
    told = "class_weights must be 5 numbers, one a class and background last, got 4"
    assert told in refused(loss % "0.5", "num_classes=4", f"{SET}annotations=/nowhere.json")
    told = "class_weights must be 4 numbers, one a class and background last, got 5"  # the data have three classes
    assert told in refused(loss % "1, 0.5")
    assert "class_weights must be at least 0, got -1" in refused(loss % "-1")


def test_every_value_that_a_constructor_refuses_is_told_at_once_and_before_the_data(refused):
    words = ("model.roi_heads.sampler.positive_fraction=25", "data.train.batch_size=0", "trainer.accumulate=0")
    words += ("model.proposal_generator.nms.iou_threshold=7", f"{SET}annotations=/nowhere.json")
    lines = refused(*words).splitlines()
    assert [line.partition("': ")[2] for line in lines] == [
        "TrainData: batch_size must be at least 1, got 0",
        "NMS: iou_threshold must be in (0, 1], got 7.0",
        "BalancedPositiveNegativeSampler: positive_fraction must be in [0, 1], got 25.0",
        "TrainerOptions: accumulate must be at least 1, got 0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.yaml:1: the file is empty"),
        ("- 1\n", "bad.yaml:1: a config is a mapping (key: value)"),
        ("seed: 1\nmodel:\n\tname: FasterRCNN\n", "bad.yaml:3: not YAML: while scanning"),
        ("seed: 1\nmodel: {name: [\noutput_dir: x\n", "bad.yaml:4: not YAML: while parsing a flow"),
        ("seed: 1\n_BASE_: lost.yaml\n", "bad.yaml:2: _BASE_: lost.yaml: No such file or directory"),
        (
            f"_BASE_: {TINY}\nimports: [lost.py]\n",
            "bad.yaml:2: imports.0: no such file: lost.py; a path under 'imports:'",
        ),
        (f"_BASE_: {TINY}\nimports: [bad.py]\n", "bad.yaml:2: imports.0: bad.py:2: SyntaxError: invalid syntax"),
    ],
)
def test_a_file_that_cannot_be_a_config_names_the_line(refused, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text("import torch\ndef f(:\n    pass\n")
    Path("bad.yaml").write_text(text)
    assert refused(config="bad.yaml").startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("SOLVER.BASE_LR=0.1", "this is detectron2's name; here it is optimizer.lr"),
        ("hooks.checkpoint.every=5", "expected a Duration, got '5': durations are written as 12ep"),
        ("trainer.duration=-3ep", "expected a Duration, got '-3ep': durations are written as 12ep"),
        ("schedule.warmup=1.5it", "expected a Duration, got '1.5it': iterations are whole numbers"),
        ("trainer.duration=0it", "TrainerOptions: duration must be longer than 0, got 0it"),
        ("hooks.checkpoint.every=0ep", "SaveCheckpoint: every must be longer than 0, got 0ep"),
        ("trainer.amp=bfloat", "expected one of off, bf16, fp16, got 'bfloat'"),
        ("optimizer.lr=-1", "AdamW: lr must be at least 0, got -1"),
        ("optimizer.lr_multipliers={bakbone: 0.1}", "AdamW: lr_multipliers: no parameter's name starts with 'bakbone'"),
        ("optimizer.reference_batch_size=0", "AdamW: reference_batch_size must be at least 1, got 0"),
        ("seed=-1", "Experiment: seed must be at least 0, got -1"),
        ("data.train.num_workers=-1", "TrainData: num_workers must be at least 0, got -1"),
        (
            "model.proposal_generator.anchor_generator.sizes=[[12],[24]]",
            "GridAnchorGenerator: sizes has 2 levels, but there are 3 feature levels",
        ),
        (
            "model.proposal_generator.in_features=[p2, p3, p9]",
            "RegionProposalNetwork: in_features has p9, which is none of the feature maps p2, p3, p4",
        ),
        (
            "model.proposal_generator.in_features=[p4, p3, p2]",
            "RegionProposalNetwork: in_features must go from fine to coarse, but p4, p3, p2 have strides (16, 8, 4)",
        ),
        (
            "model.proposal_generator.objectness_loss={name: SoftmaxCrossEntropy}",
            "RegionProposalNetwork: objectness_loss must have one logit per anchor, SoftmaxCrossEntropy has 2",
        ),
        (
            "model.roi_heads.in_features=[p2, p2]",
            "StandardROIHeads: in_features must name each feature map once, got p2, p2",
        ),
        (
            "model.roi_heads.in_features=[p2, p9]",
            "StandardROIHeads: in_features has p9, which is none of the feature maps p2, p3, p4",
        ),
    ],
)
def test_a_wrong_value_on_the_command_line_is_answered(refused, word, message):
    assert refused(word).startswith(f"error: command line '{word}': {message}")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "trainer.accumulate=3",
            "trainer.accumulate is 3, but the 4 images of a step and process cannot be split into 3",
        ),
        ("hooks.best={name: BestCheckpoint, metric: bbox/AQ}", "no metric is called 'bbox/AQ'; there are: bbox/AP, "),
        (
            "num_classes=7",
            "num_classes is 7 in the config, but the training set has 3 categories (circle, square, triangle)",
        ),
        ("init_weights=lost.pth", "lost.pth: there is no such file"),
    ],
)
def test_a_value_that_does_not_fit_the_others_is_answered(refused, word, message):
    assert message in refused(word)


def test_a_missing_config_and_words_that_are_no_options_are_answered(frcnn, tmp_path):
    code, _, err = frcnn("train", "--config-file", tmp_path / "lost.yaml")
    assert (code, err) == (
        2,
        f"error: {tmp_path}/lost.yaml: No such file or directory; expected the YAML file of a run\n",
    )
    assert "error: --config-file FILE is missing" in frcnn("train")[2]
    assert "has no option 'ATSSMatchr'; did you mean 'ATSSMatcher'?" in frcnn("train", "--help", "ATSSMatchr")[2]
    assert "error: there is no verb 'trian'; did you mean 'train'? choices: train, predict" in frcnn("trian")[2]
    with pytest.raises(SystemExit, match="2"):
        frcnn("train", "--config-file", TINY, "--seeed=3")


def test_a_run_folder_that_cannot_be_made_is_answered(train, tmp_path):
    (tmp_path / "run").write_text("a file")
    code, _, err = train()
    assert (code, err) == (
        2,
        f"error: {tmp_path}/run: the run folder cannot be made (Not a directory); choose another with --output-dir DIR\n",
    )


def test_a_refused_run_does_not_use_up_the_name_of_the_folder(refused, train, tmp_path):
    refused("num_classes=7")
    assert train()[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_refused_run_leaves_an_empty_folder_that_was_there(train, tmp_path):
    (tmp_path / "run").mkdir()
    assert train("num_classes=7")[0] == 2
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--eval-only", "--weights", "w.pth", "--init-weights", "v.pth"), "evaluates --weights and trains nothing"),
        (("--eval-only", "--weights", "w.pth", *IMPORTS), "--imports goes with --eval-only and the checkpoint's own"),
        (IMPORTS, "a config file names the files of its project under 'imports:'"),
        (("--resume-from", "c.pth", "--output-dir", "d"), "--resume-from goes on in the folder of its checkpoint"),
        (("--resume-from", "c.pth", "--init-weights", "w.pth"), "it takes neither --eval-only nor --init-weights"),
    ],
)
def test_options_that_would_do_nothing_are_refused(frcnn, words, message):
    code, _, err = frcnn("train", "--config-file", TINY, *words)
    assert (code, message in err) == (2, True), err


def test_frozen_random_weights_are_warned_of_once(train):
    assert "warning" not in train()[1]
    words = ("model.backbone={name: ResNet, depth: 18, norm: FrozenBN, freeze_at: 2}", "trainer.duration=1it")
    code, out, _ = train(*words, "model.roi_heads.in_features=[p2, p3]")
    assert code == 0
    (line,) = (line for line in out.splitlines() if line.startswith("warning"))
    assert (
        "some are frozen: 5 parameter tensors stay at random values (backbone.res2.* (4), backbone.stem.conv1" in line
    )
    assert line.endswith("set init_weights, or train all of them with norm: BN or GN and freeze_at: 0")


# ---- the annotations


def changed(**values):
    """Changes annotation 4, which belongs to image 2."""
    return lambda document: document["annotations"][3].update(values)


@pytest.mark.parametrize(
    ("values", "cause", "value"),
    [
        ({"image_id": 999}, "with an unknown image", "image_id 999, expected one of the 12 images"),
        ({"category_id": 77}, "with an unknown category", "category_id 77, expected one of [1, 2, 3]"),
        ({"bbox": [math.nan, 1, 2, 3]}, "with NaN or infinity in the box", "bbox [nan, 1.0, 2.0, 3.0], expected four"),
        ({"bbox": [1, 2, 0, 5]}, "with width or height <= 0", "bbox [1.0, 2.0, 0.0, 5.0] (x, y, width, height), exp"),
        ({"bbox": [1, 2, 3, -5]}, "with width or height <= 0", "bbox [1.0, 2.0, 3.0, -5.0] (x, y, width, height), exp"),
        ({"bbox": [90, 90, 5, 5]}, "wholly outside the image", "bbox [90.0, 90.0, 5.0, 5.0], expected a part of it"),
    ],
)
def test_an_annotation_that_cannot_be_used_stops_the_run(refused, annotations, tmp_path, values, cause, value):
    err = refused(annotations(changed(**values)))
    image = values.get("image_id", 2)
    where = f"(annotation 4 of image {image}: {value}"
    assert err.startswith(f"error: {tmp_path}/changed.json: 1 of 34 annotations cannot be used: 1 {cause} {where}")
    assert err.endswith("; correct the file, or set on_bad_annotation: skip to leave them out\n")
    assert err.count("\n") == 1


def test_skipped_annotations_are_counted_by_cause_on_the_console_and_in_the_log(train, annotations, tmp_path):
    def change(document):
        boxes = ([1, 2, 0, 5], [1, 2, -3, 5], [90, 90, 5, 5])
        for annotation, box in zip(document["annotations"], boxes, strict=False):
            annotation["bbox"] = box

    code, out, _ = train(annotations(change), f"{SET}on_bad_annotation=skip")
    assert code == 0
    for text in (out, (tmp_path / "run" / "log.txt").read_text()):
        assert "12 images, 31 objects of 3 classes, 0 crowds; kept " in text
        assert (
            "skipped 3 of 34 annotations: 2 with width or height <= 0 (annotation 1 of image 1: bbox [1.0, 2.0, "
            in text
        )
        assert "; 1 wholly outside the image (annotation 3 of image 1: bbox [90.0, 90.0, 5.0, 5.0], expected " in text


def test_a_box_that_overhangs_is_clipped_and_counted(train, annotations):
    code, out, _ = train(annotations(changed(bbox=[50, 50, 30, 30])))
    assert code == 0
    assert (
        "clipped 1 boxes that reach out of their image by more than 1 px; the furthest, 16 px: annotation 4 of" in out
    )


def rewritten(convert):
    """Changes every box, given as x, y, width, height."""

    def change(document):
        for annotation in document["annotations"]:
            annotation["bbox"] = convert(*annotation["bbox"])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewritten(lambda x, y, w, h: [x / 64, y / 64, w / 64, h / 64]), "all 34 boxes look normalised: no number is"),
        (rewritten(lambda x, y, w, h: [x, y, x + w, y + h]), "the boxes look like [x1, y1, x2, y2]: as [x, y, width, "),
        (
            changed(bbox=[1, 2, 3]),
            "annotations[3] (id 4): Expected `array` of length 4 - at `$.bbox`; bbox is [x, y, width",
        ),
        (
            changed(image_id="two"),
            "annotations[3] (id 4): Expected `int`, got `str` - at `$.image_id`; correct the value",
        ),
        (lambda document: document["images"].clear(), "the list 'images' is empty"),
        (lambda document: document["categories"].clear(), "the list 'categories' is empty"),
        (lambda document: [document], "Expected `object`, got `array`; expected COCO JSON: an object with the lists"),
    ],
)
def test_a_file_of_another_form_is_told_from_coco_json(refused, annotations, tmp_path, change, message):
    assert refused(annotations(change)).startswith(f"error: {tmp_path}/changed.json: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty (0 bytes), expected COCO JSON"),
        ('{"images": [{"id"', "not valid JSON: Input data was truncated"),
    ],
)
def test_annotations_that_are_cut_short_are_refused(refused, tmp_path, text, message):
    (tmp_path / "cut.json").write_text(text)
    assert refused(f"{SET}annotations={tmp_path}/cut.json").startswith(f"error: {tmp_path}/cut.json: {message}")


def test_dropping_every_image_says_why_and_learning_from_no_object_is_noted(refused, train, annotations):
    nothing = annotations(lambda document: document["annotations"].clear())
    err = refused(nothing, f"{SET}images_without_objects=drop")
    assert (
        "images_without_objects: drop leaves none of the 12 images: 12 have no annotation, 0 only crowds, 0 only" in err
    )
    code, out, _ = train(nothing)
    assert code == 0
    assert "not one object is left: there is nothing to learn here" in out


def test_a_missing_data_set_says_where_it_was_looked_for(frcnn, tmp_path, monkeypatch):
    words = ("train", "--config-file", TINY, "--output-dir", tmp_path / "run")
    monkeypatch.setenv("FRCNN_DATASETS", str(tmp_path))
    code, _, err = frcnn(*words)
    assert code == 2
    assert err.startswith(
        f"error: {tmp_path}/tiny/train.json: there is no such annotation file; 'tiny/train.json' is looked up"
    )
    assert f"FRCNN_DATASETS, which is '{tmp_path}'" in err
    monkeypatch.delenv("FRCNN_DATASETS")
    monkeypatch.chdir(tmp_path)
    assert "FRCNN_DATASETS, which is not set, so 'datasets' in the working folder is used" in frcnn(*words)[2]
    assert not any(tmp_path.iterdir())


def test_a_test_set_with_other_categories_is_refused(refused, shapes, tmp_path):
    document = json.loads((shapes / "test.json").read_text())
    document["categories"][0]["name"] = "blob"
    (tmp_path / "test.json").write_text(json.dumps(document))
    err = refused(f"data.test.val.dataset.annotations={tmp_path}/test.json")
    assert (
        "data.test.val has the categories blob, square, triangle, but the training set has circle, square, triangle"
        in err
    )


# ---- the images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: None, "there is no such image file; put it there or correct 'file_name' in the annotations"),
        (lambda data: b"", "the image file is empty (0 bytes); copy or download it again"),
        (lambda data: data[: len(data) // 2], "the image file is cut short after "),
        (
            lambda data: b"no image " * 50,
            "cannot be decoded as an image (450 bytes that begin with b'no image'); expected",
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_stops_the_run(refused, images, tmp_path, change, message, workers):
    err = refused(images(change), f"data.train.num_workers={workers}")
    assert err.startswith(f"error: {tmp_path}/changed/train_0000")
    assert f"): {message}" in err
    assert "(image id " in err
    assert err.count("\n") == 1


def test_an_image_of_another_size_than_in_the_annotations_stops_the_run(refused, annotations):
    def change(document):
        for image in document["images"]:
            image["width"] = 65

    err = refused(annotations(change), "data.train.num_workers=1")
    assert (
        "the file is 64 x 64 but the annotations say 65 x 64; the boxes were drawn on an image of another size" in err
    )


def test_an_image_that_breaks_an_evaluation_costs_no_training(train, shapes, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(shapes / "images", folder)
    (folder / "test_000003.jpg").write_bytes(b"")
    code, _, err = train(f"data.test.val.dataset.images={folder}", "hooks.evaluate={name: Evaluate, every: null}")
    assert code == 2
    assert (
        err
        == f"error: {folder}/test_000003.jpg (image id 3): the image file is empty (0 bytes); copy or download it again\n"
    )
    assert (tmp_path / "run" / "checkpoint_00000002.pth").exists()
    assert err in (tmp_path / "run" / "log.txt").read_text()


@pytest.fixture
def with_transform(tmp_path):
    """Writes a project with the transform `name`, and a config that takes it; `body` is its constructor and its call."""

    def write(name, *body):
        lines = ["import os, signal", "from frcnn.data.roles import TRANSFORMS, Transform", "@TRANSFORMS.register"]
        lines += [
            f"class {name}(Transform):",
            '    """A transform that goes wrong."""',
            *(f"    {line}" for line in body),
        ]
        (tmp_path / "project.py").write_text("\n".join(lines) + "\n")
        (tmp_path / "project.yaml").write_text(
            f"_BASE_: {TINY}\nimports: [{TINY.with_name('tiny_backbone.py')}, project.py]\n"
            f"data: {{train: {{transforms: [{{name: {name}}}]}}}}\n"
        )
        return tmp_path / "project.yaml"

    return write


def test_a_worker_that_is_killed_is_told_from_a_mistake_in_the_program(refused, with_transform):
    kill = "def __call__(self, sample, rng, others): os.kill(os.getpid(), signal.SIGKILL)"
    path = with_transform("KillWorker", "def __init__(self) -> None: ...", kill)
    err = refused("data.train.num_workers=1", config=path)
    assert err.startswith(
        "error: a data loading worker was lost: killed (signal 9), most likely because memory ran out:"
    )


def test_what_cannot_be_sent_to_a_spawned_worker_is_named(refused, with_transform):
    hold = "def __init__(self) -> None: self.function = lambda sample: sample"
    path = with_transform("HoldsLambda", hold, "def __call__(self, sample, rng, others): return sample")
    err = refused("data.train.num_workers=1", "data.train.start_method=spawn", config=path)
    assert err.startswith(
        "error: data loading workers cannot be given the data set and transforms (CocoDataset, HoldsL"
    )
    assert "HoldsLambda.__init__.<locals>.<lambda>" in err


# ---- the machine


def test_a_device_that_is_not_there_is_refused(refused):
    assert "device 'cuda:99' was asked for" in refused("--device", "cuda:99")
    assert "device must be auto, cpu, cuda, cuda:N or mps, got 'gpu'" in refused("--device", "gpu")


def test_opencv_that_lacks_a_library_names_the_package_and_the_wheel(start, tmp_path, monkeypatch):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = start("--config-file", TINY, "--output-dir", tmp_path / "run", *QUICK)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.splitlines()[-1].startswith("error: OpenCV (cv2) cannot be imported: libGL.so.1: cannot open shared")
    assert "apt-get install libgl1 libglib2.0-0" in output
    assert "pip install opencv-python-headless" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_opencv_that_is_not_installed_names_the_wheel(refused, monkeypatch):
    opencv.cache_clear()
    monkeypatch.setitem(sys.modules, "cv2", None)
    try:
        assert refused().startswith(
            "error: images are read with OpenCV, which is not installed: pip install opencv-python"
        )
    finally:
        opencv.cache_clear()


# ---- checkpoints


@pytest.fixture
def two_classes(shapes, tmp_path):
    """Overrides that take the triangles out of both sets."""
    words = []
    for part, name in (("train", "train"), ("test.val", "test")):
        document = json.loads((shapes / f"{name}.json").read_text())
        document["categories"] = document["categories"][:2]
        document["annotations"] = [a for a in document["annotations"] if a["category_id"] < 3]
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        words.append(f"data.{part}.dataset.annotations={tmp_path}/{name}.json")
    return words


def test_other_classes_than_the_checkpoint_has(train, trained, frcnn, two_classes, tmp_path):
    first, last = trained / "checkpoint_00000001.pth", trained / "checkpoint_00000002.pth"
    code, out, _ = train("--init-weights", last, *two_classes)
    assert code == 0
    assert "re-initialised: other shape      4  roi_heads.box_predictor.cls_score.weight [4, 64] -> [3, 64]" in out
    code, _, err = frcnn("train", "--eval-only", "--weights", last, *IMPORTS, *two_classes)
    both = "has 3 classes, and the data set has 2. In the checkpoint: circle, square, triangle. In the data set: circle, square."
    assert (code, err) == (2, f"error: {last}: {both} --init-weights can start a new run from it\n")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(trained, unfinished, ignore=shutil.ignore_patterns(last.name))
    code, _, err = frcnn("train", "--resume", "--output-dir", unfinished, *two_classes)
    assert (code, err) == (2, f"error: {unfinished / first.name}: {both} --init-weights can start a new run from it\n")


def test_as_many_other_classes_start_their_heads_anew(train, trained, shapes, tmp_path):
    words = []
    for part, name in (("train", "train"), ("test.val", "test")):
        document = json.loads((shapes / f"{name}.json").read_text())
        document["categories"][2]["name"] = "pyramid"
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        words.append(f"data.{part}.dataset.annotations={tmp_path}/{name}.json")
    weights = trained / "checkpoint_00000002.pth"
    code, out, _ = train("--init-weights", weights, *words)
    assert code == 0
    both = "knows circle, square, triangle; the training set has circle, square, pyramid"
    assert f"class heads start anew: {weights} {both}\n" in out
    assert "re-initialised: class heads      4  roi_heads.box_predictor.cls_score.weight [4, 64] (other classes)" in out
    assert f"init_weights: {weights}\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_run_from_weights_that_are_no_numbers_says_which(train, trained, tmp_path):
    weights = torch.load(trained / "checkpoint_00000002.pth", weights_only=True)["model"]
    name = next(name for name in weights if name.startswith("roi_heads."))
    torch.save({**weights, name: torch.full_like(weights[name], math.nan)}, tmp_path / "w.pth")
    code, out, err = train("--init-weights", tmp_path / "w.pth")
    assert f"w.pth: 1 of its {len(weights)} tensors hold NaN or infinite numbers ({name})" in out
    assert code == 2
    assert "look for the cause in the weights the run starts from" in err


def test_a_model_that_cannot_learn_is_refused(refused, shapes, tmp_path):
    path = tmp_path / "proposals.json"
    ids = {
        image["id"]
        for name in ("train", "test")
        for image in json.loads((shapes / f"{name}.json").read_text())["images"]
    }
    path.write_text(json.dumps([{"image_id": i, "bbox": [1, 1, 9, 9], "score": 0.5, "category_id": 1} for i in ids]))
    words = [f"data.{part}.dataset.proposals={path}" for part in ("train", "test.val")]
    generator = "model.proposal_generator={name: PrecomputedProposals, top_n: {train: 9, test: 9}}"
    message = refused(*words, generator, "model.roi_heads=null", "evaluator.name=ProposalEvaluator")
    assert message.startswith("error: there is nothing to learn: the model reads its proposals from the data set")
    assert len(message.splitlines()) == 1


def test_proposals_alone_are_not_judged_by_class(refused):
    message = refused("model.roi_heads=null")
    assert message.startswith("error: CocoEvaluator compares classes, and the model finds proposals alone")
    assert "evaluator.name=ProposalEvaluator" in message


def test_an_evaluation_is_written_where_asked(trained, frcnn, tmp_path):
    words = ("train", "--eval-only", "--weights", trained / "checkpoint_00000002.pth", *IMPORTS)
    code, out, _ = frcnn(*words, "--output-dir", tmp_path / "eval")
    assert code == 0
    names = {path.name for path in (tmp_path / "eval").iterdir()}
    assert names == {"log.txt", "evaluation.txt", "evaluation.json", "detections_val.json"}
    assert (tmp_path / "eval" / "evaluation.txt").read_text() in out
    assert "val/bbox/AP50" in json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert re.search(r"^(\d+) of the model's \1 tensors loaded from ", out, re.M)
    assert frcnn(*words, "--output-dir", tmp_path / "eval", "num_classes=7")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["eval"]


def test_a_checkpoint_without_a_config_asks_for_one(trained, frcnn, tmp_path):
    state = torch.load(trained / "checkpoint_00000002.pth", weights_only=True)
    torch.save({key: state[key] for key in ("format", "format_version", "model")}, tmp_path / "bare.pth")
    code, _, err = frcnn("train", "--eval-only", "--weights", tmp_path / "bare.pth")
    assert (code, err) == (2, f"error: {tmp_path}/bare.pth carries no config: say which with --config-file FILE\n")
    code, _, err = frcnn("predict", "--weights", tmp_path / "bare.pth", TINY.parent / "lost.jpg")
    assert (code, err) == (2, f"error: {TINY.parent}/lost.jpg: there is no such image file or folder\n")


def test_another_model_than_the_checkpoint_has(trained, frcnn):
    weights = trained / "checkpoint_00000002.pth"
    words = ("--weights", weights, *IMPORTS, "model.roi_heads.box_head.width=32")
    code, _, err = frcnn("train", "--eval-only", *words)
    assert code == 2
    assert err.startswith(f"error: {weights}: the weights do not fit the model of the config\n")
    assert "roi_heads.box_head.fc2.weight [64, 64] -> [32, 32]" in err


def test_the_config_of_a_checkpoint_is_answered_like_a_file(trained, frcnn):
    weights = trained / "checkpoint_00000002.pth"
    words = ("train", "--eval-only", "--weights", weights, *IMPORTS)
    assert (
        "command line 'modell=3': the config has no option 'modell'; did you mean 'model'?"
        in frcnn(*words, "modell=3")[2]
    )
    code, _, err = frcnn(*words, "model.backbone.name=TinyBakbone", "model.roi_heads.box_head.width=0")
    assert code == 2
    assert "no Backbone is called 'TinyBakbone'\n    did you mean 'TinyBackbone'?" in err
    code, _, err = frcnn(*words, "model.proposal_generator.in_features=[p2, p3, p4, p5]")
    assert (code, "in_features has p5, which is none of the feature maps p2, p3, p4" in err) == (2, True)
    assert frcnn(*words[:-1], "lost.py")[2] == "error: no such file: lost.py\n"


def test_resuming_what_is_not_there(train, frcnn, trained, tmp_path):
    assert "no checkpoint to resume from: " in train("--resume")[2]
    assert not (tmp_path / "run").exists()
    assert "it holds no config.yaml" in frcnn("train", "--resume", "--output-dir", tmp_path)[2]
    assert "the run is finished (2 of 2 iterations)" in frcnn("train", "--resume", "--output-dir", trained)[2]
    err = frcnn("train", "--resume", "--output-dir", trained, "trainer.duration=9it")[2]
    assert "its run is 2 iterations long and the config asks for 9" in err


def test_a_truncated_checkpoint_offers_the_one_before(trained, frcnn, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    last = folder / "checkpoint_00000002.pth"
    last.write_bytes(last.read_bytes()[:-1000])
    for words in (("--resume", "--output-dir", folder), ("--eval-only", "--weights", last)):
        code, _, err = frcnn("train", *words)
        assert code == 2
        assert err.startswith(f"error: {last}: truncated: ")
        first = folder / "checkpoint_00000001.pth"
        assert err.endswith(f"the checkpoint to use instead is {first}, from which --resume-from {first} goes on\n")
    code, out, _ = frcnn("train", "--resume-from", first)
    assert code == 0
    assert f"a later checkpoint, set aside: {last}.old\n" in out
    assert re.search(r"^(\d+) of the model's \1 tensors loaded from ", out, re.M)
    assert "resumed at iteration 1 of 2: " in out
    again, whole = (torch.load(path / last.name, weights_only=True)["model"] for path in (folder, trained))
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_resuming_with_another_config_is_refused(trained, frcnn, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("checkpoint_00000002.pth"))
    config = (folder / "config.yaml").read_bytes()
    words = ("train", "--resume", "--output-dir", folder, "data.train.num_workers=0")
    code, out, err = frcnn(*words, "optimizer.lr=5e-5", "seed=9")
    path = folder / "checkpoint_00000001.pth"
    assert (code, err.splitlines()) == (
        2,
        [
            f"error: {path}: cannot go on with another config than its own",
            "  optimizer.lr: 0.002 in the checkpoint, 5.0e-05 now",
            "  seed: 0 in the checkpoint, 9 now",
            f"set them back to resume, or start a new run with --init-weights {path}",
        ],
    )
    assert "learning rate" not in out
    code, out, _ = frcnn(*words)
    assert code == 0
    assert "changed, with no effect on the training: data.train.num_workers: 1 in the checkpoint, 0 now\n" in out
    assert "learning rate 0.002 as in the checkpoint, 0.000102 at this iteration\n" in out
    assert "reference batch size" not in out
    assert (folder / "config.yaml").read_bytes() == config
    assert (folder / "curves.png").exists()


def test_an_evaluation_beside_a_run_is_not_taken_for_its_newest(train, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(trained, tmp_path / "run_2")
    (tmp_path / "run_3").mkdir()
    (tmp_path / "run" / "config.yaml").unlink()
    assert train("--resume")[2].startswith(f"error: {tmp_path}/run_2/checkpoint_00000002.pth: the run is finished")


def test_a_run_that_stopped_early_says_why(trained, frcnn, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("checkpoint_00000002.pth"))
    path = folder / "checkpoint_00000001.pth"
    torch.save({**torch.load(path, weights_only=True), "stop_reason": "bbox/AP has not improved"}, path)
    code, _, err = frcnn("train", "--resume", "--output-dir", folder)
    assert code == 2
    assert "the run was stopped early, at iteration 1 of 2: bbox/AP has not improved; nothing is left to resume" in err


def test_of_several_processes_the_main_one_tells_a_mistake(start, frcnn, monkeypatch, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = ("--config-file", TINY, "--output-dir", tmp_path / "run", "--device", "cpu", "num_classes=7")
    process = start(*words, launcher=torchrun)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output.count("error: num_classes is 7 in the config") == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("frcnn.cli.train.HEAD_START", 0.0)
    assert "error: num_classes is 7 in the config" in frcnn("train", *words)[2]  # nobody else told it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "weights.pth: there is no such file"),
        ("text", "weights.pth: not a file of torch.save; it begins with b'text'"),
        (
            {"backbone.body.conv1.weight": torch.zeros(1), "rpn.head.conv.weight": torch.zeros(1)},
            "weights.pth: not a checkpoint of frcnn; it looks like the state dict of a torchvision detector; --init-weights can",
        ),
        (
            {"model": argparse.Namespace()},
            "weights.pth: holds 'argparse.Namespace'; loading that would run code from the file",
        ),
    ],
)
def test_predicting_with_what_is_no_checkpoint(frcnn, shapes, tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        torch.save(content, path)
    code, _, err = frcnn("predict", "--weights", path, "--output", tmp_path / "out", shapes / "images")
    assert code == 2
    assert err.startswith(f"error: {tmp_path}/{message}")
    assert not (tmp_path / "out").exists()


# ---- prediction


def test_a_broken_image_does_not_stop_the_others(trained, frcnn, shapes, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("test_000001.jpg", "test_000002.jpg"):
        shutil.copy(shapes / "images" / name, folder)
    (folder / "test_000000.jpg").write_bytes(b"")
    weights = ("--weights", trained / "checkpoint_00000002.pth", *IMPORTS)
    code, out, _ = frcnn("predict", *weights, "--output", tmp_path / "out", folder)
    assert code == 1
    assert "2 images in " in out
    assert f"not read: {folder}/test_000000.jpg: the image file is empty (0 bytes); copy or download it again" in out
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["test_000001.jpg", "test_000002.jpg"]


def test_images_that_are_not_there_or_would_be_overwritten(trained, frcnn, shapes, tmp_path):
    weights = ("predict", "--weights", trained / "checkpoint_00000002.pth")
    assert frcnn(*weights, tmp_path / "lost.jpg")[2].endswith("lost.jpg: there is no such image file or folder\n")
    assert "there is no image in this folder" in frcnn(*weights, "--output", tmp_path / "out", tmp_path)[2]
    code, _, err = frcnn(*weights, "--output", shapes / "images", shapes / "images")
    assert (code, "annotated images would overwrite the images; choose another folder with --output" in err) == (
        2,
        True,
    )
    assert "--score-thresh must be in [0, 1], got 7" in frcnn(*weights, "--score-thresh", "7", shapes / "images")[2]


def test_a_data_set_that_cannot_be_generated(frcnn, tmp_path):
    (tmp_path / "file").write_text("")
    assert frcnn("make-shapes", "--output", tmp_path / "file")[::2] == (
        2,
        f"error: {tmp_path}/file/images: Not a directory\n",
    )
    code, _, err = frcnn("make-shapes", "--output", tmp_path / "shapes", "--image-size", "0")
    assert (code, "--image-size at least 32" in err) == (2, True)
