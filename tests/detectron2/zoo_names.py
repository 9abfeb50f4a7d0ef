"""The names and shapes in detectron2's state dicts, by rules read off its modules; nothing of frcnn is asked.

resnet.py       stem.conv1, resX.N.{shortcut,conv1,conv2,conv3}, conv2_offset in deformable blocks; no biases
fpn.py          fpn_lateralX and fpn_outputX, with biases where they have no norm
rpn.py          conv, objectness_logits (A anchors a place), anchor_deltas (4 A)
box_head.py     convN (3x3, 256 wide), then fcN (1024 wide)
fast_rcnn.py    cls_score (background last), bbox_pred (4 numbers a class, or 4 in all)
mask_head.py    mask_fcnN, deconv (transposed: input channels first), predictor
keypoint_head.py    conv_fcnN (512 wide), score_lowres (transposed, 4x4)
"""

from __future__ import annotations

from collections.abc import Collection

NORM_PARTS = {
    "FrozenBN": ("weight", "bias", "running_mean", "running_var"),
    "SyncBN": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "GN": ("weight", "bias"),
}
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Names(dict[str, list[int]]):
    """Name -> shape, filled layer by layer."""

    def conv(self, name: str, channels_in: int, out: int, kernel: int, norm: str = "", *, bias: bool = True) -> None:
        self[f"{name}.weight"] = [out, channels_in, kernel, kernel]
        if bias and not norm:
            self[f"{name}.bias"] = [out]
        for part in NORM_PARTS[norm] if norm else ():
            self[f"{name}.norm.{part}"] = [] if part == "num_batches_tracked" else [out]

    def transposed(self, name: str, channels_in: int, out: int, kernel: int) -> None:
        self[f"{name}.weight"] = [channels_in, out, kernel, kernel]
        self[f"{name}.bias"] = [out]

    def linear(self, name: str, width_in: int, out: int) -> None:
        self[f"{name}.weight"] = [out, width_in]
        self[f"{name}.bias"] = [out]

    def stage(self, prefix: str, number: int, depth: int, groups: int, width: int, norm: str, offsets: int) -> None:
        """res`number`; `offsets` is how many numbers a deformable convolution computes at each place, 0 in a plain one."""
        out, inner = 256 * 2 ** (number - 2), groups * width * 2 ** (number - 2)
        channels = 64 if number == 2 else out // 2
        for block in range(BLOCKS[depth][number - 2]):
            name = f"{prefix}res{number}.{block}"
            if block == 0:
                self.conv(f"{name}.shortcut", channels, out, 1, norm)
            self.conv(f"{name}.conv1", channels, inner, 1, norm)
            if offsets:
                self.conv(f"{name}.conv2_offset", inner, offsets, 3)
            self.conv(f"{name}.conv2", inner // groups, inner, 3, norm)
            self.conv(f"{name}.conv3", inner, out, 1, norm)
            channels = out


def zoo_names(
    kind: str = "FPN",
    *,
    depth: int = 50,
    groups: int = 1,
    width: int = 64,
    norm: str = "FrozenBN",
    fpn_norm: str = "",
    head_norm: str = "",
    deformable: Collection[int] = (),
    modulated: bool = False,
    classes: int = 80,
    rois: bool = True,
    rpn: bool = True,
    cascade: int = 0,
    agnostic_boxes: bool = False,
    box_convs: int = 0,
    mask_convs: int | None = None,
    agnostic_masks: bool = False,
    keypoints: int = 0,
) -> dict[str, list[int]]:
    """The state dict of a detector of the zoo.

    Args:
        kind: FPN, C4 or DC5.
        depth: of the ResNet.
        groups: of its 3x3 convolutions; more than 1 is a ResNeXt.
        width: of a group in res2.
        norm: of the ResNet.
        fpn_norm: of the FPN.
        head_norm: of convolutions in the heads.
        deformable: numbers of the stages with deformable convolutions.
        modulated: whether these have masks.
        classes: without the background.
        rois: whether there are ROI heads.
        rpn: whether there is an RPN.
        cascade: stages of a cascade; 0 is none.
        agnostic_boxes: one box for all classes.
        box_convs: convolutions in the box head, before one fully connected layer; without any, there are two of those.
        mask_convs: convolutions of the mask head; None has no mask head.
        agnostic_masks: one mask for all classes.
        keypoints: of an object; 0 has no keypoint head.
    """
    names = Names()
    trunk = "backbone.bottom_up." if kind == "FPN" else "backbone."
    frozen = "FrozenBN" if norm == "SyncBN" else norm
    names.conv(f"{trunk}stem.conv1", 3, 64, 7, frozen)
    for number in (2, 3, 4) if kind == "C4" else (2, 3, 4, 5):
        offsets = (27 if modulated else 18) if number in deformable else 0
        names.stage(trunk, number, depth, groups, width, frozen if number == 2 else norm, offsets)
    if kind == "FPN":
        for level in (2, 3, 4, 5):
            names.conv(f"backbone.fpn_lateral{level}", 256 * 2 ** (level - 2), 256, 1, fpn_norm)
            names.conv(f"backbone.fpn_output{level}", 256, 256, 3, fpn_norm)
    channels, anchors = {"FPN": (256, 3), "C4": (1024, 15), "DC5": (2048, 15)}[kind]
    if rpn:
        names.conv("proposal_generator.rpn_head.conv", channels, channels, 3)
        names.conv("proposal_generator.rpn_head.objectness_logits", channels, anchors, 1)
        names.conv("proposal_generator.rpn_head.anchor_deltas", channels, 4 * anchors, 1)
    if not rois:
        return dict(names)
    if kind == "C4":
        names.stage("roi_heads.", 5, depth, groups, width, norm, 0)
    for stage in [f"{number}." for number in range(cascade)] or [""]:
        if kind != "C4":
            for number in range(1, box_convs + 1):
                names.conv(
                    f"roi_heads.box_head.{stage}conv{number}", channels if number == 1 else 256, 256, 3, head_norm
                )
            names.linear(f"roi_heads.box_head.{stage}fc1", (256 if box_convs else channels) * 7 * 7, 1024)
            if not box_convs:
                names.linear(f"roi_heads.box_head.{stage}fc2", 1024, 1024)
        features = 2048 if kind == "C4" else 1024
        names.linear(f"roi_heads.box_predictor.{stage}cls_score", features, classes + 1)
        names.linear(f"roi_heads.box_predictor.{stage}bbox_pred", features, 4 if agnostic_boxes else 4 * classes)
    if mask_convs is not None:
        wide = 2048 if kind == "C4" else channels
        for number in range(1, mask_convs + 1):
            names.conv(f"roi_heads.mask_head.mask_fcn{number}", wide if number == 1 else 256, 256, 3, head_norm)
        names.transposed("roi_heads.mask_head.deconv", 256 if mask_convs else wide, 256, 2)
        names.conv("roi_heads.mask_head.predictor", 256, 1 if agnostic_masks else classes, 1)
    if keypoints:
        for number in range(1, 9):
            names.conv(f"roi_heads.keypoint_head.conv_fcn{number}", channels if number == 1 else 512, 512, 3)
        names.transposed("roi_heads.keypoint_head.score_lowres", 512, keypoints, 4)
    return dict(names)


def caffe2_names(depth: int, groups: int = 1, width: int = 64, norm: str = "bn") -> dict[str, list[int]]:
    """A classifier's blobs as Caffe2 calls them (`R-50.pkl`): batch norms are folded into a scale `s` and a shift `b`.

    Args:
        depth: of the ResNet.
        groups: of its 3x3 convolutions.
        width: of a group in res2.
        norm: bn or gn.
    """
    names: dict[str, list[int]] = {}

    def conv(name: str, shape: list[int], norm_name: str) -> None:
        names[f"{name}_w"] = shape
        for part in ("s", "b"):
            names[f"{norm_name}_{norm}_{part}"] = shape[:1]

    conv("conv1", [64, 3, 7, 7], "res_conv1" if norm == "bn" else "conv1")
    for number, blocks in enumerate(BLOCKS[depth], start=2):
        out, inner = 256 * 2 ** (number - 2), groups * width * 2 ** (number - 2)
        channels = 64 if number == 2 else out // 2
        for block in range(blocks):
            name = f"res{number}_{block}_branch"
            if block == 0:
                conv(f"{name}1", [out, channels, 1, 1], f"{name}1")
            conv(f"{name}2a", [inner, channels, 1, 1], f"{name}2a")
            conv(f"{name}2b", [inner, inner // groups, 3, 3], f"{name}2b")
            conv(f"{name}2c", [out, inner, 1, 1], f"{name}2c")
            channels = out
    names |= {"conv1_b": [64]} if groups == 1 and norm == "bn" else {}
    return names | {"pred_w": [1000, 2048], "pred_b": [1000]}
