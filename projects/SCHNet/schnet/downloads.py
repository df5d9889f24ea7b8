"""Fetching files over HTTP into a cache: whole or not at all, by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import portalocker
from iopath.common.file_io import file_lock, get_cache_dir
from tqdm import tqdm

from schnet.official_weights import Digest, file_name_of

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
# Seconds without a byte from the server.
SILENCE_SECONDS = 60
_OTHER_WAY = "download the file elsewhere and give its path"


class DownloadError(Exception):
    """A file cannot be fetched; the text is the reason.

    Attributes:
        remedy: what the user can do.
    """

    def __init__(self, reason: str, remedy: str = f"check the network, or {_OTHER_WAY}") -> None:
        """Keep the reason, in one line, and the remedy."""
        super().__init__(" ".join(reason.split()))
        self.remedy = remedy


def cached_path(url: str) -> Path:
    """Where the file of an address is cached: below `$FVCORE_CACHE`, by server and path.

    The server is part of it, so that two servers' files of one path are not taken for each other;
    a query of the address is part of it too, as a few digits before the ending of the name.
    """
    parts = urlsplit(url)
    name = Path(file_name_of(url).strip(".") or "file")
    if parts.query:
        mark = hashlib.sha256(parts.query.encode()).hexdigest()[:8]
        name = Path(f"{name.stem}-{mark}{name.suffix}")
    folders = [part for part in parts.path.split("/")[:-1] if part not in ("", ".", "..")]
    server = parts.netloc.rpartition("@")[2].replace(":", "_").strip(".")
    return Path(get_cache_dir(), server, *folders, name)


def fetch_file(url: str, digest: Digest | None, find_fault: Callable[[Path], str]) -> Path:
    """The file of an address, from the cache or downloaded into it.

    Only one of several processes downloads; the others wait and take its file. What is not whole,
    has another digest or a fault never gets into the cache, and what is found there with one is
    moved aside (`<name>.bad`) and downloaded again. A digest is computed once: `<name>.verified`
    keeps the size and time that the file had then.

    Args:
        url: an address that `urllib` opens (http, https, ftp).
        digest: what the file must hash to; None where that is not known.
        find_fault: tells cheaply what is wrong with the content of a file, or "".

    Raises:
        DownloadError: the file is not to be had.
    """
    target = cached_path(url)
    if _is_good(target, digest, find_fault):
        return target
    try:
        with file_lock(str(target)):
            if not target.is_file() or not _admit_cached(target, digest, find_fault):
                _download(url, target, digest, find_fault)
    except OSError as error:
        raise _worded(error, target) from error
    except http.client.HTTPException as error:
        raise DownloadError(f"the connection broke: {error!r}", "start again") from error
    except portalocker.LockException as error:
        raise DownloadError(
            f"the lock {target}.lock cannot be had: {error}",
            "set FVCORE_CACHE to a folder of a local disk",
        ) from error
    return target


def file_digest(path: str | os.PathLike[str], algorithm: str) -> str:
    """Hexadecimal digest of a file, by a name of `hashlib`."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _is_good(target: Path, digest: Digest | None, find_fault: Callable[[Path], str]) -> bool:
    """Whether a cached file is there and was verified as it is, told without reading it."""
    if not target.is_file() or find_fault(target):
        return False
    return digest is None or _read_mark(target) == _mark(target, digest)


def _admit_cached(target: Path, digest: Digest | None, find_fault: Callable[[Path], str]) -> bool:
    """Verify what another process or an earlier run left in the cache, or move it aside."""
    if _is_good(target, digest, find_fault):
        return True
    fault = find_fault(target)
    if not fault and digest is not None:
        fault = _digest_fault(digest, file_digest(target, digest.algorithm))
        if not fault:
            _write_mark(target, digest)
            return True
    aside = target.with_name(f"{target.name}.bad")
    os.replace(target, aside)
    logger.warning("the cached file %s is bad: %s; moved to %s", target, fault, aside.name)
    return False


def _download(
    url: str, target: Path, digest: Digest | None, find_fault: Callable[[Path], str]
) -> None:
    part = target.with_name(f"{target.name}.part")
    hashing = hashlib.new(digest.algorithm if digest else "sha256", usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as source:
            announced = _announced_length(source)
            with open(part, "wb") as file, _progress(url, target, announced) as advance:
                while chunk := source.read(CHUNK_BYTES):
                    file.write(chunk)
                    hashing.update(chunk)
                    advance(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        length = part.stat().st_size
        if announced is not None and length != announced:
            raise DownloadError(
                f"the connection ended after {length} of {announced} bytes", "start again"
            )
        if fault := find_fault(part):
            raise DownloadError(f"the server sent {fault}", f"correct the address, or {_OTHER_WAY}")
        if digest and (fault := _digest_fault(digest, hashing.hexdigest())):
            raise DownloadError(
                f"{target.name} arrived with another content: {fault}",
                f"start again, which downloads it anew, or {_OTHER_WAY}",
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    if digest:
        _write_mark(target, digest)


def _announced_length(source: object) -> int | None:
    header = getattr(source, "headers", {}).get("Content-Length")
    return int(header) if header is not None and header.isdigit() else None


def _digest_fault(digest: Digest, found: str) -> str:
    if digest.matches(found):
        return ""
    shown = found[: len(digest.start)]
    return f"expected the {digest.algorithm.upper()} {digest.start}, found {shown}"


def _mark(target: Path, digest: Digest) -> dict[str, object]:
    status = target.stat()
    return {
        "algorithm": digest.algorithm,
        "start": digest.start,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


def _mark_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.verified")


def _read_mark(target: Path) -> object:
    try:
        return json.loads(_mark_path(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_mark(target: Path, digest: Digest) -> None:
    _mark_path(target).write_text(json.dumps(_mark(target, digest)), encoding="utf-8")


@contextlib.contextmanager
def _progress(url: str, target: Path, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show how far a download is: a bar on a terminal, else a line at each tenth."""
    _say(f"downloading {url} to {target} ({_mebibytes(total)})")
    if sys.stderr.isatty():
        with tqdm(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
            yield bar.update
        return
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        before, done = done, done + size
        if total and (tenth := 10 * done // total) > 10 * before // total:
            _say(f"{target.name}: {10 * tenth} % of {_mebibytes(total)}")

    yield advance


def _say(line: str) -> None:
    # Weights are fetched before a run's log begins: until then lines go to standard error.
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        tqdm.write(line, file=sys.stderr)


def _mebibytes(size: int | None) -> str:
    return "size unknown" if size is None else f"{size / 2**20:.1f} MiB"


def _worded(error: OSError, target: Path) -> DownloadError:
    """Tell a server's refusal, a missing network and a full disk from one another."""
    if isinstance(error, urllib.error.HTTPError):
        return DownloadError(
            f"the server answers {error.code} {error.reason}", f"correct it, or {_OTHER_WAY}"
        )
    if isinstance(error, urllib.error.URLError):
        return DownloadError(str(error.reason))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
        return DownloadError(
            f"{target} cannot be written: {error.strerror}",
            "free space there, or set FVCORE_CACHE to another folder",
        )
    return DownloadError(str(error) or type(error).__name__)
