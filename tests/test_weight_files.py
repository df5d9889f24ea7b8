"""Weight files in every form: plain, wrapped, TorchScript, safetensors; and what is none."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.utils.file_io import PathManager
from torch import nn

from schnet import weight_files
from schnet.errors import InputError
from schnet.weight_files import (
    OFFICIAL_WEIGHTS,
    locate_weights,
    official_url,
    read_state_dict,
    read_torch_file,
)

KEY = "MODEL.SAM.WEIGHTS"


def _state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def _assert_same(state: dict[str, torch.Tensor]) -> None:
    assert set(state) == set(_state())
    assert all(torch.equal(state[name], value) for name, value in _state().items())


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_torch_files_plain_and_wrapped(tmp_path: Path, wrapper: str | None) -> None:
    content = {wrapper: _state(), "epoch": 3} if wrapper else _state()
    torch.save(content, tmp_path / "w.pth")
    _assert_same(read_state_dict(str(tmp_path / "w.pth"), KEY))


def test_prefix_of_distributed_training_is_dropped(tmp_path: Path) -> None:
    torch.save({f"module.{name}": value for name, value in _state().items()}, tmp_path / "w.pth")
    _assert_same(read_state_dict(str(tmp_path / "w.pth"), KEY))


def test_torchscript_archive_keeps_its_types(tmp_path: Path) -> None:
    module = nn.Linear(3, 2).half()
    torch.jit.save(torch.jit.script(module), str(tmp_path / "clip.pt"))
    state = read_state_dict(str(tmp_path / "clip.pt"), "MODEL.CLIP.WEIGHTS")
    assert torch.equal(state["weight"], module.weight)
    assert state["weight"].dtype == torch.float16


def test_safetensors(tmp_path: Path) -> None:
    import safetensors.torch as safetensors

    safetensors.save_file(_state(), tmp_path / "w.safetensors")
    _assert_same(read_state_dict(str(tmp_path / "w.safetensors"), KEY))
    (tmp_path / "bad.safetensors").write_bytes(b"no header")
    with pytest.raises(InputError, match=r"bad.safetensors, which cannot be read"):
        read_state_dict(str(tmp_path / "bad.safetensors"), KEY)


def test_safetensors_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(InputError, match="pip install safetensors"):
        read_state_dict(str(tmp_path / "w.safetensors"), KEY)


def _damaged() -> dict[str, bytes]:
    """Contents that are no weight files, by what happened to them."""
    whole = io.BytesIO()
    torch.save(_state(), whole)
    return {
        "truncated": whole.getvalue()[:200],
        "broken directory": whole.getvalue().replace(b"PK\x01\x02", b"PKXX", 1),
        "later zip": whole.getvalue().replace(b"PK\x01\x02\0\0\0", b"PK\x01\x02\0\0\xc0", 1),
        "page": b"<html>not found</html>",
        "page with a byte order mark": b"\xef\xbb\xbf\n<!DOCTYPE HTML>\n<title>404</title>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n",
        "empty": b"",
        "noise": random.Random(0).randbytes(300),
        "pickle": b"cos\nsystem\n(S'true'\ntR.",
        "truncated pickle": b"\x80\x02.",
        "bad text in a pickle": b"\x80\x02X\x02\0\0\0\xff\xff.",
    }


@pytest.mark.parametrize(
    ("damage", "reason", "remedy"),
    [
        ("truncated", "failed finding central directory", "download or copy it again"),
        ("page", "(an HTML page, not a weight file)", "download it again"),
        ("page with a byte order mark", "(an HTML page, not a weight file)", "download it again"),
        ("pointer", "(a Git-LFS pointer, not a weight file)", "run git lfs pull"),
        ("empty", "no file of torch.save, or a damaged one", "download or copy"),
        ("noise", "no file of torch.save, or a damaged one", "download or copy"),
        ("pickle", "holds Python objects other than tensors", "a state dict"),
        ("truncated pickle", "no file of torch.save, or a damaged one", "download or copy"),
        ("bad text in a pickle", "no file of torch.save, or a damaged one", "download or copy"),
    ],
)
@pytest.mark.parametrize("read", [read_state_dict, read_torch_file])
def test_unreadable_file_is_named_with_what_it_is_and_the_remedy(
    tmp_path: Path, damage: str, reason: str, remedy: str, read: Callable[[str, str], object]
) -> None:
    path = tmp_path / "sam.pth"
    path.write_bytes(_damaged()[damage])
    with pytest.raises(InputError) as caught:
        read(str(path), KEY)
    message = str(caught.value)
    assert message.startswith(f"{KEY} names {path}, which cannot be read")
    assert reason in message and f"): {remedy}" in message.replace("give ", "")
    assert "\n" not in message and "Weights only" not in message


@pytest.mark.parametrize("damage", ["broken directory", "later zip"])
def test_archive_that_zipfile_cannot_list_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "sam.pth"
    path.write_bytes(_damaged()[damage])
    with pytest.raises(InputError, match=r"no file of torch.save, or a damaged one\): download"):
        read_state_dict(str(path), KEY)


def test_pickled_module_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(InputError, match="Python objects other than tensors.*give a state dict"):
        read_state_dict(str(tmp_path / "w.pth"), KEY)


def test_any_damaged_byte_is_bad_input(tmp_path: Path) -> None:
    """What the readers raise has no common type; a few hundred damages show most of them."""
    whole = io.BytesIO()
    torch.save(_state(), whole)
    rng = random.Random(0)
    path = tmp_path / "w.pth"
    refused = 0
    for _ in range(200):
        content = bytearray(whole.getvalue())
        for _ in range(4):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            read_state_dict(str(path), KEY)
        except InputError:
            refused += 1
    assert refused > 100


def test_file_without_tensors_is_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds no state dict"):
        read_state_dict(str(tmp_path / "w.pth"), KEY)


def test_missing_file_names_key_path_and_official_names() -> None:
    with pytest.raises(InputError, match=r"MODEL.SAM.WEIGHTS names no/such.pth.*sam_vit_l"):
        read_state_dict("no/such.pth", KEY)


def test_official_addresses() -> None:
    assert official_url("sam_vit_b").endswith("/sam_vit_b_01ec64.pth")
    for name in OFFICIAL_WEIGHTS:
        assert official_url(name).startswith("https://")
    assert official_url("clip_vit_l14").endswith("/ViT-L-14.pt")


def test_official_name_is_fetched_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cached.pth"
    cached.touch()
    asked: list[str] = []
    monkeypatch.setattr(
        weight_files.PathManager, "get_local_path", lambda url: asked.append(url) or str(cached)
    )
    assert locate_weights("sam_vit_h", KEY) == str(cached)
    assert asked == [official_url("sam_vit_h")]


def test_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(PathManager, "get_local_path", refuse)
    with pytest.raises(
        InputError, match=r"sam_vit_b and https://.*no route to host.*give its path"
    ):
        locate_weights("sam_vit_b", KEY)
