"""What a weight file is, and what is wrong with it, told from its first and last bytes."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

EMPTY = "an empty file"
WEB_PAGE = "an HTML page, not a weight file"
LFS_POINTER = "a Git-LFS pointer, not a weight file"

_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
_ZIP_HEAD = b"PK\x03\x04"
# Every pickle from protocol 2 on begins so: torch.save's format before PyTorch 1.6.
_PICKLE_HEAD = b"\x80"
_HEAD_BYTES = 1024
_LENGTH_BYTES = 8
# The key of what is no tensor in a safetensors header.
_NOTES = "__metadata__"
# safetensors' own limit.
_MAX_HEADER_BYTES = 100_000_000


def find_fault(path: str | os.PathLike[str]) -> str:
    """Tell cheaply what a file is instead of a whole weight file.

    It reads the head of the file, and the directory of an archive, which stands at its end: of a
    file that was cut off, it is missing.

    Args:
        path: a file.

    Returns:
        Such as `an HTML page, not a weight file`; "" where nothing is wrong as far as can be seen.
    """
    try:
        head = _head_of(path)
    except OSError as error:
        return error.strerror or type(error).__name__
    text = head.lstrip(b"\xef\xbb\xbf\t\r\n ").lower()
    if not head:
        return EMPTY
    if text.startswith(_LFS_HEAD):
        return LFS_POINTER
    if text.startswith(b"<") and b"html" in text:
        return WEB_PAGE
    if is_safetensors(path):
        return _safetensors_fault(path, head)
    if head.startswith(_ZIP_HEAD):
        return "" if zipfile.is_zipfile(path) else "a truncated archive: its end is missing"
    if head.startswith(_PICKLE_HEAD):
        return ""
    return "no file of torch.save, TorchScript or safetensors, or a damaged one"


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file is named as safetensors, or begins as one."""
    head = _head_of(path)
    is_header = head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    return Path(path).suffix == ".safetensors" or (
        is_header and _header_length(head) <= _MAX_HEADER_BYTES
    )


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Tell a TorchScript archive from a file of `torch.save`: only it keeps its constants apart."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _header_length(head: bytes) -> int:
    return int.from_bytes(head[:_LENGTH_BYTES], "little")


def _safetensors_fault(path: str | os.PathLike[str], head: bytes) -> str:
    """Compare a file's length with what its header says of its tensors."""
    length, size = _header_length(head), os.path.getsize(path)
    if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{" or length > _MAX_HEADER_BYTES:
        return "no safetensors header, or a damaged one"
    whole = _LENGTH_BYTES + length
    if size >= whole:
        try:
            with open(path, "rb") as file:
                file.seek(_LENGTH_BYTES)
                header = json.loads(file.read(length))
            whole += max(
                (
                    entry["data_offsets"][1]
                    for name, entry in header.items()
                    if name != _NOTES  # which may have any keys
                ),
                default=0,
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "no safetensors header, or a damaged one"
    if size < whole:
        return f"a truncated safetensors file: {size} of at least {whole} bytes"
    return ""


def _head_of(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD_BYTES)
