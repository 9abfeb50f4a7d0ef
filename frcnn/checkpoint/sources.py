"""Where weights come from: a path, `https://...#sha256=...`, or `torchvision://NAME`."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urldefrag, urlsplit

import torch
import torchvision
from iopath.common.file_io import HTTPURLHandler, PathManager
from torch import Tensor

from frcnn.checkpoint.detectron2 import from_detectron2
from frcnn.checkpoint.files import read_weights_file
from frcnn.checkpoint.kinds import Kind, detect_kind, state_dict_of
from frcnn.checkpoint.load import inference_weights, require_known_version
from frcnn.checkpoint.torchvision import COCO_LABELS, from_torchvision
from frcnn.errors import UserError

logger = logging.getLogger("frcnn")

TORCHVISION = "torchvision://"
_URL = ("https://", "http://")
_COCO_SLOTS = 91
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # how PyTorch names its files: resnet18-f37072fd.pth


@dataclass(frozen=True)
class Weights:
    """Weights under this framework's names.

    Args:
        source: as the person wrote it.
        path: the file they were read from.
        kind: which framework wrote the file.
        state_dict: tensors by our names; of a checkpoint of ours, the weights to evaluate with.
        checkpoint: everything in the file, if it is a checkpoint of ours; else None.
    """

    source: str
    path: Path
    kind: Kind
    state_dict: Mapping[str, Tensor]
    checkpoint: Mapping[str, Any] | None

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes in order, which only a checkpoint of ours knows."""
        if self.checkpoint is None or not self.checkpoint.get("categories"):
            return None
        return [category["name"] for category in self.checkpoint["categories"]]


def resolve_weights(source: str | os.PathLike[str]) -> Weights:
    """Fetches, reads and converts weights.

    Args:
        source: a path; `https://...`, with `#sha256=` and the hash (8 digits of it or more) to have it verified; or
            `torchvision://NAME`, where NAME is a model (`resnet18`: its default weights) or an entry of torchvision's
            weights (`ResNet18_Weights.IMAGENET1K_V1`).

    Raises:
        UserError: not there, offline, a wrong hash, unreadable, or no weights.
    """
    path = fetch(source)
    return read_weights(path, source=str(source))


def read_weights(path: Path, *, source: str) -> Weights:
    """Reads a file of weights of any kind we know and gives its tensors our names."""
    content = read_weights_file(path)
    kind = detect_kind(content)
    if kind is Kind.UNKNOWN:
        raise UserError(
            f"{source}: holds no weights: neither tensors by name, nor such a dict under 'model' or 'state_dict'"
        )
    if kind is Kind.FRCNN:
        require_known_version(content, path)
        return Weights(source, path, kind, inference_weights(content), content)
    return Weights(source, path, kind, _with_our_names(state_dict_of(content), kind), None)


def fetch(source: str | os.PathLike[str]) -> Path:
    """The local file of a source; downloads it into the cache if it is not there.

    The cache is `FRCNN_CACHE`, by default `~/.cache/frcnn`. Files that torch.hub has downloaded before are found too.
    """
    text = os.fspath(source)
    if text.startswith(TORCHVISION):
        return _fetch_url(_torchvision_url(text.removeprefix(TORCHVISION)))
    if text.startswith(_URL):
        return _fetch_url(text)
    if "://" in text:
        raise UserError(f"{text}: weights come from a path, https://... or {TORCHVISION}NAME")
    return Path(text).expanduser()


def cache_folder() -> Path:
    """`FRCNN_CACHE`, by default `~/.cache/frcnn`."""
    return Path(os.environ.get("FRCNN_CACHE") or "~/.cache/frcnn").expanduser()


def _fetch_url(url: str) -> Path:
    address, fragment = urldefrag(url)
    digest = _wanted_digest(url, fragment)
    if address.startswith("http://") and digest is None:
        raise UserError(f"{address}: without https the file needs #sha256=<hash> behind its address")
    name = address.rsplit("/", 1)[1]
    if not name:
        raise UserError(f"{address}: the address names no file")
    hub_copy = Path(torch.hub.get_dir()) / "checkpoints" / name
    if hub_copy.is_file() and digest and _sha256(hub_copy).startswith(digest):
        return hub_copy
    folder = cache_folder() / "weights" / urlsplit(address).netloc.replace(":", "_")
    # where iopath's handler puts it: the folders of the address below the folder it is given
    expected = (folder / urlsplit(address).path.lstrip("/")).with_name(name)
    was_there = expected.is_file()
    path = expected if was_there else _download(address, folder, expected)
    if digest:
        _verify(path, digest, address, remove=not was_there)
    return path


def _download(address: str, folder: Path, expected: Path) -> Path:
    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    logger.info("downloading %s to %s", address, expected)
    try:
        with _silenced("iopath.common.download"):  # the error below says it once and better
            return Path(manager.get_local_path(address, cache_dir=str(folder)))
    except OSError as error:  # urllib's errors are OSErrors
        reason = error.reason if type(error) is URLError else error
        raise UserError(
            f"{address}: could not be downloaded ({reason}). Without a network, fetch the file elsewhere and put it at "
            f"{expected}"
        ) from error


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    library = logging.getLogger(name)
    was_disabled, library.disabled = library.disabled, True
    try:
        yield
    finally:
        library.disabled = was_disabled


def _wanted_digest(url: str, fragment: str) -> str | None:
    if fragment:
        key, _, digest = fragment.partition("=")
        if key != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{8,64}", digest):
            raise UserError(
                f"{url}: expected #sha256= and 8 to 64 hexadecimal digits behind the address, got #{fragment}"
            )
        return digest.lower()
    named = _HASH_IN_NAME.search(url)
    return named[1] if named and "pytorch.org/" in url else None


def _verify(path: Path, digest: str, address: str, *, remove: bool) -> None:
    found = _sha256(path)
    if found.startswith(digest):
        return
    if remove:
        path.unlink(missing_ok=True)  # several processes may come to this
    after = "the download was thrown away" if remove else "delete it to download it again"
    raise UserError(f"{path}: refused: its sha256 is {found}, and {address} should have {digest}; {after}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _torchvision_url(name: str) -> str:
    """The address of torchvision's weights, by the name of an entry or of a model (its default weights)."""
    try:
        if "." in name:
            return torchvision.models.get_weight(name).url
        return torchvision.models.get_model_weights(name).DEFAULT.url
    except (ValueError, KeyError, AttributeError) as error:
        near = difflib.get_close_matches(
            name.partition(".")[0].lower(), torchvision.models.list_models(), n=1, cutoff=0.4
        )
        raise UserError(
            f"{TORCHVISION}{name}: torchvision {torchvision.__version__} has no such weights; expected a model"
            + (f" ({near[0]}?)" if near else "")
            + " or an entry such as ResNet18_Weights.IMAGENET1K_V1"
        ) from error


def _with_our_names(state_dict: dict[str, Tensor], kind: Kind) -> Mapping[str, Tensor]:
    """Converted weights; those no converter knows keep their names, so that the table of loading lists them."""
    if kind is Kind.STATE_DICT:
        return state_dict
    if kind is Kind.DETECTRON2:
        converted = from_detectron2(state_dict)
    else:
        converted = from_torchvision(state_dict, labels=_coco_labels(state_dict))
    return {**converted.state_dict, **{name: state_dict[name] for name in converted.unused}}


def _coco_labels(state_dict: Mapping[str, Tensor]) -> Sequence[int] | None:
    """The labels of COCO's 80 classes, if this is a detector with the 91 slots that torchvision publishes."""
    scores = state_dict.get("roi_heads.box_predictor.cls_score.bias")
    return COCO_LABELS if scores is not None and len(scores) == _COCO_SLOTS else None
