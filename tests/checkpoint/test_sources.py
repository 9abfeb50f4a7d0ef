"""Weights by path, by address, and by torchvision's names; there is no network in these tests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision

from frcnn.checkpoint import sources
from frcnn.checkpoint.kinds import Kind
from frcnn.checkpoint.save import save_checkpoint
from frcnn.checkpoint.sources import fetch, resolve_weights
from frcnn.errors import UserError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FRCNN_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def served(tmp_path: Path, cache: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlretrieve", refuse)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_path_to_our_checkpoint_gives_averaged_weights_and_class_names(tmp_path: Path) -> None:
    state = {"model": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}, "categories": [{"id": 7, "name": "RBC"}]}
    save_checkpoint(tmp_path / "best.pth", state)
    weights = resolve_weights(tmp_path / "best.pth")
    assert weights.kind is Kind.FRCNN
    assert weights.state_dict == {"w": torch.ones(1)}
    assert weights.class_names == ["RBC"]


def test_a_plain_state_dict_keeps_its_names(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.backbone.w": torch.ones(1)}}, tmp_path / "w.pth")
    weights = resolve_weights(str(tmp_path / "w.pth"))
    assert list(weights.state_dict) == ["backbone.w"]
    assert weights.checkpoint is None
    assert weights.class_names is None


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (torchvision.ops.MLP(2, [3]), "a whole module (torchvision.ops.misc.MLP)", "weights_only=False).state_dict()"),
        (
            {"epoch": 1, "model": torchvision.ops.MLP(2, [3])},
            "whole modules under its keys",
            "weights_only=False)['model'].state_dict()",
        ),
    ],
)
def test_a_whole_module_is_told_in_a_line(tmp_path: Path, content: object, what: str, remedy: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError) as caught:
        resolve_weights(tmp_path / "w.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'w.pth'}: holds {what}, not weights;")
    assert message.endswith(f"torch.save(torch.load(FILE, {remedy}, 'weights.pth')")
    assert "Linear" not in message
    assert "\n" not in message


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no weights"):
        resolve_weights(tmp_path / "w.pth")


def test_a_download_is_verified_cached_and_used_again_without_the_server(served: tuple[Path, str], cache: Path) -> None:
    folder, address = served
    torch.save({"w": torch.ones(1)}, folder / "w.pth")
    url = f"{address}/w.pth#sha256={sha256(folder / 'w.pth')}"
    assert resolve_weights(url).state_dict == {"w": torch.ones(1)}
    (folder / "w.pth").unlink()
    again = fetch(url)
    assert again.is_relative_to(cache)
    assert again.name == "w.pth"


def test_a_download_with_a_wrong_hash_is_refused_and_thrown_away(served: tuple[Path, str]) -> None:
    folder, address = served
    torch.save({"w": torch.ones(1)}, folder / "w.pth")
    url = f"{address}/w.pth#sha256={'0' * 64}"
    for _ in range(2):
        with pytest.raises(UserError, match=rf"refused: its sha256 is {sha256(folder / 'w.pth')}.*thrown away"):
            fetch(url)


def test_a_file_put_into_the_cache_with_a_wrong_hash_is_refused_and_left(cache: Path) -> None:
    path = cache / "weights" / "host" / "a" / "w.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(UserError, match="delete it to download it again"):
        fetch(f"https://host/a/w.pth#sha256={'0' * 64}")
    assert path.exists()


def test_a_page_that_is_not_there_says_so(served: tuple[Path, str]) -> None:
    _, address = served
    with pytest.raises(UserError, match=r"absent.pth: could not be downloaded \(HTTP Error 404: File not found\)"):
        fetch(f"{address}/absent.pth#sha256={'0' * 64}")


def test_plain_http_needs_a_hash(cache: Path) -> None:
    with pytest.raises(UserError, match="without https the file needs #sha256="):
        fetch("http://host/w.pth")


@pytest.mark.parametrize("fragment", ["sha256=xyz", "md5=00000000", "sha256=00"])
def test_a_fragment_that_is_no_hash_is_refused(cache: Path, fragment: str) -> None:
    with pytest.raises(UserError, match="expected #sha256= and 8 to 64 hexadecimal digits"):
        fetch(f"https://host/w.pth#{fragment}")


def test_offline_the_message_names_the_address_and_where_to_put_the_file(cache: Path, offline: None) -> None:
    place = cache / "weights" / "host" / "a" / "w.pth"
    with pytest.raises(UserError) as caught:
        fetch("https://host/a/w.pth")
    assert str(caught.value) == (
        "https://host/a/w.pth: could not be downloaded (network is unreachable). "
        f"Without a network, fetch the file elsewhere and put it at {place}"
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.ones(1)}, place)
    assert fetch("https://host/a/w.pth") == place


@pytest.mark.parametrize("name", ["resnet18", "ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"])
def test_torchvision_names_lead_to_their_file(cache: Path, offline: None, name: str) -> None:
    place = cache / "weights" / "download.pytorch.org" / "models" / "resnet18-f37072fd.pth"
    with pytest.raises(UserError, match=rf"resnet18-f37072fd.pth: could not be downloaded.*put it at {place}"):
        fetch(f"torchvision://{name}")


def test_torchvision_files_are_verified_by_the_hash_in_their_name(cache: Path) -> None:
    place = cache / "weights" / "download.pytorch.org" / "models" / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"other")
    with pytest.raises(UserError, match="should have 258fb6c6"):
        fetch("torchvision://fasterrcnn_resnet50_fpn")


def test_a_file_that_torch_hub_has_downloaded_is_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / "w.pth").write_bytes(b"content")
    digest = sha256(hub / "w.pth")
    monkeypatch.setattr(sources, "_torchvision_url", lambda name: f"https://host/w.pth#sha256={digest}")
    assert fetch("torchvision://anything") == hub / "w.pth"


def test_an_unknown_torchvision_name_gets_the_nearest_one(cache: Path) -> None:
    with pytest.raises(UserError, match=r"no such weights; expected a model \(resnet18\?\)"):
        fetch("torchvision://resnet81")


def test_other_schemes_are_refused() -> None:
    with pytest.raises(UserError, match=r"weights come from a path, https://..., torchvision://NAME or"):
        fetch("s3://bucket/w.pth")


def test_a_torchvision_classifier_becomes_a_backbone_and_its_last_layer_is_not_lost_silently(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    weights = resolve_weights(tmp_path / "w.pth")
    assert weights.kind is Kind.TORCHVISION_CLASSIFIER
    assert all(name.startswith("backbone.") for name in weights.state_dict)
    assert weights.conversion is not None
    assert weights.conversion.left_out == dict.fromkeys(("fc.weight", "fc.bias"), "the classifier's last layers")


def test_the_91_slots_of_torchvisions_coco_detectors_become_80_classes(tmp_path: Path) -> None:
    names = {"rpn.head.cls_logits.bias": 3, "backbone.body.bn1.bias": 64, "roi_heads.box_predictor.cls_score.bias": 91}
    torch.save({name: torch.arange(float(size)) for name, size in names.items()}, tmp_path / "w.pth")
    weights = resolve_weights(tmp_path / "w.pth")
    assert weights.kind is Kind.TORCHVISION_DETECTOR
    scores = weights.state_dict["roi_heads.box_predictor.cls_score.bias"]
    assert len(scores) == 81
    assert scores[:12].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]  # slot 12 is empty in COCO
    assert scores[-1] == 0  # torchvision's background is first, ours last


def test_a_detectron2_file_is_converted(tmp_path: Path) -> None:
    torch.save(
        {"model": {"backbone.bottom_up.stem.conv1.weight": torch.ones(1), "odd": torch.ones(1)}}, tmp_path / "w.pth"
    )
    weights = resolve_weights(tmp_path / "w.pth")
    assert weights.kind is Kind.DETECTRON2
    assert "odd" in weights.state_dict
    assert "backbone.bottom_up.stem.conv1.weight" not in weights.state_dict
