"""Weight files in every form: plain, wrapped, TorchScript, safetensors; and what is none."""

from __future__ import annotations

import errno
import hashlib
import io
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn
from weight_server import Answer, WeightServer, serve

from schnet import weight_kinds
from schnet.errors import InputError
from schnet.official_weights import OFFICIAL_WEIGHTS, OfficialFile
from schnet.weight_files import check_weights, locate_weights, read_state_dict, read_torch_file

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
    # Notes may have a tensor's keys, as an export's have its type.
    safetensors.save_file(_state(), tmp_path / "w.safetensors", {"dtype": "float16"})
    assert check_weights(str(tmp_path / "w.safetensors"), KEY)
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
    whole, old = io.BytesIO(), io.BytesIO()
    torch.save(_state(), whole)
    torch.save(_state(), old, _use_new_zipfile_serialization=False)
    return {
        "truncated old format": old.getvalue()[:-8],
        "truncated": whole.getvalue()[:200],
        "broken directory": whole.getvalue().replace(b"PK\x01\x02", b"PKXX", 1),
        "later zip": whole.getvalue().replace(b"PK\x01\x02\0\0\0", b"PK\x01\x02\0\0\xc0", 1),
        "page": b"<html>not found</html>",
        "page with a byte order mark": b"\xef\xbb\xbf\n<!DOCTYPE HTML>\n<title>404</title>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n",
        "empty": b"",
        "noise": random.Random(0).randbytes(300),
        "pickle": b"\x80\x02cos\nsystem\n(S'true'\ntR.",
        "text": b"quota exceeded",
        "truncated pickle": b"\x80\x02.",
        "bad text in a pickle": b"\x80\x02X\x02\0\0\0\xff\xff.",
    }


@pytest.mark.parametrize(
    ("damage", "reason", "remedy"),
    [
        ("truncated", "a truncated archive: its end is missing", "download or copy it again"),
        ("truncated old format", "unexpected EOF", "download or copy it again"),
        ("text", "no file of torch.save, TorchScript or safetensors", "download or copy"),
        ("page", "(an HTML page, not a weight file)", "download it again"),
        ("page with a byte order mark", "(an HTML page, not a weight file)", "download it again"),
        ("pointer", "(a Git-LFS pointer, not a weight file)", "run git lfs pull"),
        ("empty", "an empty file", "download or copy"),
        ("noise", "no file of torch.save, TorchScript or safetensors", "download or copy"),
        ("pickle", "holds Python objects other than tensors", "a state dict"),
        ("truncated pickle", "no file of torch.save, or a damaged one", "download or copy"),
        ("bad text in a pickle", "no file of torch.save, or a damaged one", "download or copy"),
    ],
)
@pytest.mark.parametrize("read", [read_state_dict, read_torch_file, check_weights])
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
@pytest.mark.parametrize("read", [read_state_dict, check_weights])
def test_archive_that_zipfile_cannot_list_is_refused(
    tmp_path: Path, damage: str, read: Callable[[str, str], object]
) -> None:
    path = tmp_path / "sam.pth"
    path.write_bytes(_damaged()[damage])
    with pytest.raises(InputError, match=r"no file of torch.save, or a damaged one\): download"):
        read(str(path), KEY)


def test_file_that_may_not_be_read_is_told_from_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(weight_kinds, "_head_of", denied)
    (tmp_path / "w.pth").touch()
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        check_weights(str(tmp_path / "w.pth"), KEY)


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


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightServer]:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    content = io.BytesIO()
    torch.save(_state(), content)
    with serve() as running:
        running.answers["/sam_vit_b_01ec64.pth"] = Answer(content.getvalue())
        running.answers["/w.pth"] = Answer(content.getvalue())
        yield running


def _publish(monkeypatch: pytest.MonkeyPatch, server: WeightServer, sha256: str) -> str:
    """Let `sam_vit_b` stand for a file of the local server; returns its address."""
    file = OfficialFile(f"{server.url}/sam_vit_b_01ec64.pth", sha256)
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "sam_vit_b", file)
    return file.url


def test_official_name_is_fetched_and_verified(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = server.answers["/sam_vit_b_01ec64.pth"].body
    url = _publish(monkeypatch, server, hashlib.sha256(body).hexdigest())
    _assert_same(read_state_dict("sam_vit_b", KEY))
    assert Path(check_weights(url, KEY)).read_bytes() == body
    assert len(server.asked) == 1


def test_official_name_with_another_content_is_refused(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = _publish(monkeypatch, server, "ab" * 32)
    with pytest.raises(InputError) as caught:
        check_weights("sam_vit_b", KEY)
    message = str(caught.value)
    assert message.startswith(f"{KEY} names sam_vit_b ({url}), which cannot be fetched")
    assert f"expected the SHA256 {'ab' * 32}, found " in message
    assert message.endswith("give its path") and "\n" not in message


def test_digest_in_another_servers_address_counts(server: WeightServer) -> None:
    with pytest.raises(InputError, match="expected the MD5 01ec64, found"):
        check_weights(f"{server.url}/sam_vit_b_01ec64.pth", KEY)
    assert check_weights(f"{server.url}/w.pth", KEY)


def test_error_page_from_a_server_is_named(server: WeightServer) -> None:
    server.answers["/w.pth"] = Answer(b"<html>sign in</html>")
    with pytest.raises(InputError, match=rf"{KEY} names http.*the server sent an HTML page"):
        locate_weights(f"{server.url}/w.pth", KEY)


class _OwnHandler(PathHandler):
    """A path handler as a user registers one, for a prefix, from a local file."""

    def __init__(self, prefix: str, path: Path) -> None:
        super().__init__()
        self.prefix, self.path = prefix, path

    def _get_supported_prefixes(self) -> list[str]:
        return [self.prefix]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: object) -> str:
        if path.endswith("gone.pth"):
            raise RuntimeError("no such\nobject")
        return str(self.path)


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that a test registers are forgotten after it."""
    monkeypatch.setattr(PathManager, "_path_handlers", PathManager._path_handlers.copy())


@pytest.mark.parametrize("prefix", ["s3://", "https://models.org/", "http://"])
def test_path_handlers_of_the_user_are_asked(tmp_path: Path, handlers: None, prefix: str) -> None:
    torch.save(_state(), tmp_path / "w.pth")
    own = _OwnHandler(prefix, tmp_path / "w.pth")
    PathManager.register_handler(own, allow_override=True)
    _assert_same(read_state_dict(f"{prefix}sam.pth", KEY))
    with pytest.raises(InputError, match=r"RuntimeError: no such object\): check the network"):
        check_weights(f"{prefix}gone.pth", KEY)
    own.path = tmp_path / "absent.pth"
    with pytest.raises(InputError, match="no file at .*absent.pth: correct the address"):
        check_weights(f"{prefix}sam.pth", KEY)


def test_unknown_scheme_is_no_file() -> None:
    with pytest.raises(InputError, match=r"names gopher://w.pth, which is no file"):
        check_weights("gopher://w.pth", KEY)


def test_checking_reads_no_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch as safetensors

    torch.save(_state(), tmp_path / "w.pth")
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), str(tmp_path / "w.pt"))
    safetensors.save_file(_state(), tmp_path / "w.safetensors")
    load, calls = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **k: calls.append(k) or load(*a, **k))
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("read"))
    monkeypatch.setattr(safetensors, "load_file", lambda *a, **k: pytest.fail("read"))
    for name in ("w.pth", "w.pt", "w.safetensors"):
        assert check_weights(str(tmp_path / name), KEY) == str(tmp_path / name)
    assert [call["mmap"] for call in calls] == [True]


@pytest.mark.parametrize("kept", [4, 40, -1])
@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_truncated_safetensors_is_named(tmp_path: Path, kept: int, name: str) -> None:
    import safetensors.torch as safetensors

    safetensors.save_file(_state(), tmp_path / name)
    check_weights(str(tmp_path / name), KEY)
    _assert_same(read_state_dict(str(tmp_path / name), KEY))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    told = "truncated safetensors file" if kept != 4 else "no (safetensors header|file of torch)"
    for read in (check_weights, read_state_dict):
        with pytest.raises(InputError, match=told):
            read(str(tmp_path / name), KEY)


@pytest.mark.parametrize("header", [b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32"}}', b"{{"])
def test_damaged_safetensors_header_is_named(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="no safetensors header, or a damaged one"):
        check_weights(str(path), KEY)


@pytest.mark.parametrize("sized", [True, False])
def test_own_file_with_an_official_name_is_reported_and_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sized: bool
) -> None:
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(_state(), path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    size = path.stat().st_size
    file = OfficialFile(f"https://a.org/{path.name}", found, size if sized else None)
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "sam_vit_b", file)
    assert check_weights(str(path), KEY) == str(path)
    assert caplog.text == ""
    other = OfficialFile(file.url, "ab" * 32, size + 1 if sized else None)
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "sam_vit_b", other)
    assert check_weights(str(path), KEY) == str(path)
    told = f"{size} bytes instead of {size + 1}" if sized else f"SHA-256 {found} instead of abab"
    assert f"{KEY} names {path}, which has an official name" in caplog.text
    assert told in caplog.text
    caplog.clear()
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    check_weights(str(path), KEY)
    assert caplog.text == ""
