from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from schnet.command import serve
from schnet.command.main import main
from schnet.errors import InputError


def test_without_gradio_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'schnet\[serve\]'"):
        main(["serve", "--weights", str(tmp_path)])


def test_a_taken_port_is_told_before_the_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with serve.listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port} cannot be served on .*--port"):
            main(["serve", "--weights", str(tmp_path), "--port", str(port)])
    with pytest.raises(InputError, match="no model"):
        main(["serve", "--weights", str(tmp_path), "--port", "0"])


@pytest.mark.parametrize(
    ("host", "port"),
    [("127.0.0.1", 70000), ("192.0.2.1", 0), ("127.0.0.1", -5), ("a..b", 0), ("x" * 64, 0)],
)
def test_impossible_addresses_are_told(host: str, port: int) -> None:
    with pytest.raises(InputError, match=f"{host}:{port} cannot be served on"):
        serve.listen(host, port)


def test_what_is_local() -> None:
    assert all(map(serve.is_local, ("127.0.0.1", "127.8.0.1", "localhost", "::1")))
    assert not any(map(serve.is_local, ("0.0.0.0", "::", "10.0.0.2", "myhost")))


def test_the_socket_is_freed_after_an_error() -> None:
    with serve.listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
