"""Where weights come from: a path, `https://...#sha256=...`, `torchvision://NAME` or `detectron2://PATH`."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
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

from frcnn.checkpoint.conversion import Conversion
from frcnn.checkpoint.convert import author_of, convert
from frcnn.checkpoint.files import read_weights_file
from frcnn.checkpoint.kinds import Kind, detect_kind, state_dict_of
from frcnn.checkpoint.load import inference_weights, require_known_version
from frcnn.errors import UserError

logger = logging.getLogger("frcnn")

TORCHVISION = "torchvision://"
DETECTRON2 = "detectron2://"
_DETECTRON2_FILES = "https://dl.fbaipublicfiles.com/detectron2/"
_URL = ("https://", "http://")
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
        conversion: what became of every tensor of another framework's file; None where nothing was renamed.
        author: who wrote the file, as it says itself (detectron2's `__author__`).
    """

    source: str
    path: Path
    kind: Kind
    state_dict: Mapping[str, Tensor]
    checkpoint: Mapping[str, Any] | None
    conversion: Conversion | None = None
    author: str | None = None

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes in order, which only a checkpoint of ours knows."""
        if self.checkpoint is None or not self.checkpoint.get("categories"):
            return None
        return [category["name"] for category in self.checkpoint["categories"]]


def resolve_weights(source: str | os.PathLike[str]) -> Weights:
    """Fetches, reads and converts weights.

    Args:
        source: a path; `https://...`, with `#sha256=` and the hash (8 digits of it or more) to have it verified;
            `torchvision://NAME`, where NAME is a model (`resnet18`: its default weights) or an entry of torchvision's
            weights (`ResNet18_Weights.IMAGENET1K_V1`); or `detectron2://PATH`, a file of detectron2's model zoo.

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
    if kind is Kind.STATE_DICT:
        return Weights(source, path, kind, state_dict_of(content), None)
    conversion = convert(content, kind, source)
    return Weights(source, path, kind, conversion.ours, None, conversion, author_of(content))


def fetch(source: str | os.PathLike[str]) -> Path:
    """The local file of a source; downloads it into the cache if it is not there.

    The cache is `FRCNN_CACHE`, by default `~/.cache/frcnn`. Files that torch.hub has downloaded before are found too.
    """
    text = os.fspath(source)
    if text.startswith(TORCHVISION):
        return _fetch_url(_torchvision_url(text.removeprefix(TORCHVISION)))
    if text.startswith(DETECTRON2):
        return _fetch_url(_DETECTRON2_FILES + text.removeprefix(DETECTRON2))
    if text.startswith(_URL):
        return _fetch_url(text)
    if "://" in text:
        raise UserError(f"{text}: weights come from a path, https://..., {TORCHVISION}NAME or {DETECTRON2}PATH")
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
