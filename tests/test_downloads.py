"""Downloads from a real server: whole or not at all, checked, cached, one process at a time."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from weight_server import Answer, WeightServer, serve

from schnet import downloads
from schnet.downloads import DownloadError, cached_path, fetch_file
from schnet.official_weights import Digest
from schnet.weight_kinds import find_fault

# Looks like torch.save's old format, as far as `find_fault` looks.
BODY = b"\x80\x02" + bytes(range(256)) * 40
SHA256 = Digest("sha256", hashlib.sha256(BODY).hexdigest())

FETCH = """
import sys
from schnet.downloads import fetch_file
from schnet.official_weights import Digest
print(fetch_file(sys.argv[1], Digest("sha256", sys.argv[2]), lambda path: ""))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[WeightServer]:
    with serve() as running:
        running.answers["/models/w.pth"] = Answer(BODY)
        yield running


def _files(cache: Path) -> list[str]:
    """Names in the cache that are neither locks nor marks."""
    paths = (p for p in cache.rglob("*") if p.is_file())
    return sorted(p.name for p in paths if p.suffix not in (".lock", ".verified"))


def _process(url: str, digest: Digest = SHA256) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, url, digest.start], stdout=subprocess.PIPE, text=True
    )


def test_whole_file_is_fetched_once(server: WeightServer, cache: Path) -> None:
    for _ in range(2):
        path = fetch_file(f"{server.url}/models/w.pth", SHA256, find_fault)
        assert path.read_bytes() == BODY
    assert server.asked == ["/models/w.pth"]
    assert _files(cache) == ["w.pth"]


@pytest.mark.parametrize("digest", [SHA256, None])
@pytest.mark.parametrize(
    ("answer", "told", "remedy"),
    [
        (Answer(BODY, announced=len(BODY) + 9), f"after {len(BODY)} of {len(BODY) + 9}", "again"),
        (Answer(BODY, chunked=True), "the connection broke", "again"),
        (Answer(b"<!DOCTYPE html>\n<html>moved</html>"), "sent an HTML page", "the address"),
        (Answer(b"quota exceeded"), "sent no file of torch.save", "the address"),
        (Answer(b""), "sent an empty file", "the address"),
        (Answer(b"no", status=404), "the server answers 404", "give its path"),
        (Answer(b"no", status=503), "the server answers 503", "give its path"),
    ],
)
def test_anything_but_the_file_is_named_and_the_next_run_downloads_again(
    server: WeightServer, cache: Path, answer: Answer, told: str, remedy: str, digest: Digest | None
) -> None:
    url = f"{server.url}/models/w.pth"
    server.answers["/models/w.pth"] = answer
    with pytest.raises(DownloadError, match=told) as caught:
        fetch_file(url, digest, find_fault)
    assert remedy in caught.value.remedy
    assert _files(cache) == []
    server.answers["/models/w.pth"] = Answer(BODY)
    assert fetch_file(url, digest, find_fault).read_bytes() == BODY


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_other_digest_names_file_and_both_digests(
    server: WeightServer, cache: Path, algorithm: str
) -> None:
    expected, found = "0" * 6, hashlib.new(algorithm, BODY).hexdigest()
    told = f"w.pth .*expected the {algorithm.upper()} {expected}, found {found[:6]}"
    with pytest.raises(DownloadError, match=told) as caught:
        fetch_file(f"{server.url}/models/w.pth", Digest(algorithm, expected), find_fault)
    assert "give its path" in caught.value.remedy
    assert _files(cache) == []
    good = Digest(algorithm, found[:6])
    assert fetch_file(f"{server.url}/models/w.pth", good, find_fault).read_bytes() == BODY


@pytest.mark.parametrize("digest", [SHA256, None])
@pytest.mark.parametrize("held", [b"<html>", BODY[:-1], b""])
def test_bad_file_of_the_cache_is_moved_aside_and_fetched_again(
    server: WeightServer,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    digest: Digest | None,
    held: bytes,
) -> None:
    url = f"{server.url}/models/w.pth"
    target = cached_path(url)
    target.parent.mkdir(parents=True)
    target.write_bytes(held)
    if digest is None and held == BODY[:-1]:
        # Without a digest nobody can know.
        assert fetch_file(url, digest, find_fault).read_bytes() == held
        return
    with caplog.at_level(logging.WARNING):
        assert fetch_file(url, digest, find_fault).read_bytes() == BODY
    assert _files(cache) == ["w.pth", "w.pth.bad"]
    assert target.with_name("w.pth.bad").read_bytes() == held
    assert "is bad" in caplog.text


def test_digest_of_a_cached_file_is_computed_once(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url}/models/w.pth"
    target = cached_path(url)
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY)
    computed: list[object] = []
    digest_of = downloads.file_digest
    monkeypatch.setattr(
        downloads, "file_digest", lambda path, name: computed.append(path) or digest_of(path, name)
    )
    for _ in range(3):
        assert fetch_file(url, SHA256, find_fault) == target
    assert computed == [target] and server.asked == []
    # The same length, later: it must be looked at again.
    target.write_bytes(BODY[:2] + BODY[:1:-1])
    os.utime(target, ns=(1, 1))
    assert fetch_file(url, SHA256, find_fault).read_bytes() == BODY
    assert len(computed) == 2 and len(server.asked) == 1


def test_without_a_network_the_reason_and_another_way_are_told(cache: Path) -> None:
    with serve() as server:
        gone = server.url
    with pytest.raises(DownloadError, match="refused") as caught:
        fetch_file(f"{gone}/w.pth", None, find_fault)
    assert "check the network, or download the file elsewhere" in caught.value.remedy
    assert _files(cache) == []


def test_silent_server_is_not_waited_for(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.05)
    server.answers["/models/w.pth"] = Answer(BODY, pause=0.5)
    with pytest.raises(DownloadError, match="timed out"):
        fetch_file(f"{server.url}/models/w.pth", None, find_fault)


def test_full_disk_names_the_file_and_the_cache_variable(
    server: WeightServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads.os, "fsync", full)
    with pytest.raises(DownloadError, match="w.pth cannot be written: No space") as caught:
        fetch_file(f"{server.url}/models/w.pth", None, find_fault)
    assert "FVCORE_CACHE" in caught.value.remedy
    assert _files(cache) == []


def test_three_processes_download_once(server: WeightServer, cache: Path) -> None:
    server.answers["/models/w.pth"] = Answer(BODY, pause=1.0)
    processes = [_process(f"{server.url}/models/w.pth") for _ in range(3)]
    paths = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert server.asked == ["/models/w.pth"]
    assert {Path(path).read_bytes() for path in paths} == {BODY}


def test_killed_download_leaves_nothing_that_is_taken_for_whole(
    server: WeightServer, cache: Path
) -> None:
    url = f"{server.url}/models/w.pth"
    server.answers["/models/w.pth"] = Answer(BODY, pause=30.0)
    process = _process(url)
    deadline = time.monotonic() + 60
    while not server.asked and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert server.asked and not cached_path(url).exists()
    server.answers["/models/w.pth"] = Answer(BODY)
    assert fetch_file(url, SHA256, find_fault).read_bytes() == BODY
    assert _files(cache) == ["w.pth"]


def test_servers_and_queries_do_not_share_a_cached_file(cache: Path) -> None:
    urls = [
        "https://a.org/m/w.safetensors",
        "https://b.org/m/w.safetensors",
        "https://a.org/m/w.safetensors?rev=1",
        "https://a.org/m/w.safetensors?rev=2",
        "https://me:secret@a.org/w.safetensors",
    ]
    paths = [cached_path(url) for url in urls]
    assert len(set(paths)) == len(urls)
    assert {path.suffix for path in paths} == {".safetensors"}
    assert "secret" not in str(paths[-1])
    for url in ("https://a.org/../../w.pth", "https://a.org/..%2F..%2Fw.pth", "https://../../.."):
        assert cached_path(url).resolve().is_relative_to(cache.resolve())


def test_progress_is_a_line_at_each_tenth_where_there_is_no_terminal(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(downloads, "CHUNK_BYTES", 128)
    with caplog.at_level(logging.INFO, "schnet"):
        fetch_file(f"{server.url}/models/w.pth", SHA256, find_fault)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith(f"downloading {server.url}/models/w.pth to ")
    assert [line.split()[1] for line in lines[1:]] == [str(n) for n in range(10, 101, 10)]


def test_progress_before_the_log_begins_goes_to_standard_error(
    server: WeightServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_file(f"{server.url}/models/w.pth", SHA256, find_fault)
    out, err = capsys.readouterr()
    assert out == "" and "downloading" in err and "100 % of" in err


def test_progress_is_a_bar_on_a_terminal(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch_file(f"{server.url}/models/w.pth", SHA256, find_fault)
    assert "w.pth: 100%" in terminal.getvalue()


def test_mark_of_another_digest_does_not_count(server: WeightServer) -> None:
    url = f"{server.url}/models/w.pth"
    path = fetch_file(url, Digest("md5", hashlib.md5(BODY).hexdigest()[:6]), find_fault)
    mark = path.with_name("w.pth.verified")
    assert json.loads(mark.read_text())["algorithm"] == "md5"
    with pytest.raises(DownloadError, match="expected the SHA256"):
        fetch_file(url, Digest("sha256", "0" * 64), find_fault)
