"""Reading weight files: where they are (path, URL, official name) and what is in them."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import HTTPURLHandler

from schnet.downloads import DownloadError, fetch_file, file_digest
from schnet.errors import InputError
from schnet.official_weights import OFFICIAL_WEIGHTS, digest_in_url, official_file_named
from schnet.weight_kinds import (
    LFS_POINTER,
    WEB_PAGE,
    find_fault,
    is_safetensors,
    is_torchscript,
)

logger = logging.getLogger(__name__)

_AGAIN = "download or copy it again"
_REMEDIES = {
    LFS_POINTER: "run git lfs pull",
    WEB_PAGE: "download it again from the file's own address",
}


def check_weights(weights: str, key: str) -> str:
    """Find a weight file and refuse what is none, before anything is built from it.

    Only the head, the directory and the names of an archive are read, not its tensors. A file that
    has an official name and another content than the official one is reported in the log.

    Args:
        weights: a path, a URL, or a name of `OFFICIAL_WEIGHTS`.
        key: the config key or option that names it, for error messages.

    Returns:
        Path of a local file.

    Raises:
        InputError: there is no such file, it cannot be fetched, or it is no weight file.
    """
    path = locate_weights(weights, key)
    fault = find_fault(path)
    if fault:
        raise _unreadable(path, key, fault, _REMEDIES.get(fault, _AGAIN))
    if is_safetensors(path):
        _require_safetensors(path, key)
    else:
        _check_pickled(path, key)
    if path == weights and comm.is_main_process():
        _report_other_content(path, key)
    return path


def locate_weights(weights: str, key: str) -> str:
    """Find a weight file on this machine, fetching it into the cache where it is remote.

    Args:
        weights: a path, a URL that Detectron2's `PathManager` knows, or an official name.
        key: the config key or option that names it, for error messages.

    Returns:
        Path of a local file.

    Raises:
        InputError: there is no such file, or it cannot be fetched.
    """
    if os.path.isfile(weights):
        return weights
    url = OFFICIAL_WEIGHTS[weights].url if weights in OFFICIAL_WEIGHTS else weights
    if "://" not in url:
        raise InputError(
            f"{key} names {weights}, which is no file: give an existing path, a URL, or one of "
            f"{', '.join(OFFICIAL_WEIGHTS)}"
        )
    named = weights if weights == url else f"{weights} ({url})"
    try:
        path = _fetch(url)
    except DownloadError as error:
        raise InputError(
            f"{key} names {named}, which cannot be fetched ({error}): {error.remedy}"
        ) from error
    if not os.path.isfile(path):
        raise InputError(f"{key} names {named}, which is no file at {path}: correct the address")
    return path


def _fetch(url: str) -> str:
    """Fetch a file into the cache, by the user's own path handler where there is one."""
    if _is_plainly_downloaded(url):
        return str(fetch_file(url, digest_in_url(url), find_fault))
    try:
        return str(PathManager.get_local_path(url))
    # A handler of the user's, or Detectron2's, may raise anything.
    except Exception as error:
        raise DownloadError(f"{type(error).__name__}: {error}") from error


def _is_plainly_downloaded(url: str) -> bool:
    """Whether `PathManager` would take iopath's own downloader for an address.

    Ours stands in for that one, which neither compares digests nor refuses error pages.
    """
    handlers = getattr(PathManager, "_path_handlers", {})
    # The first prefix counts, as in PathManager, which keeps the longer ones before the shorter.
    handler = next((h for prefix, h in handlers.items() if url.startswith(prefix)), None)
    return type(handler) is HTTPURLHandler


def read_state_dict(weights: str, key: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a weight file, on the CPU and unchanged.

    Takes `.safetensors`, a file of `torch.save` (a plain state dict, or one under `model` or
    `state_dict`), and a TorchScript archive such as CLIP's official files.

    Args:
        weights: a path, a URL, or a name of `OFFICIAL_WEIGHTS`.
        key: the config key or option that names it, for error messages.

    Returns:
        The state dict, name to tensor.

    Raises:
        InputError: the file is missing, cannot be read, or holds no state dict.
    """
    path = locate_weights(weights, key)
    if is_safetensors(path):
        return _state_dict_of(_read_safetensors(path, key), path, key)
    with _unreadable_refused(path, key):
        content = _read_torchscript(path) if is_torchscript(path) else _read_pickled(path)
    return _state_dict_of(content, path, key)


def read_torch_file(path: str, key: str) -> Any:
    """Read a file of `torch.save` with `weights_only=True`, on the CPU.

    Raises:
        InputError: PyTorch cannot read it.
    """
    with _unreadable_refused(path, key):
        return _read_pickled(path)


def _read_pickled(path: str, *, mmap: bool = False) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _check_pickled(path: str, key: str) -> None:
    with _unreadable_refused(path, key):
        if is_torchscript(path):
            return
        # Memory-mapped, which only archives can be, no tensor is read.
        content = _read_pickled(path, mmap=zipfile.is_zipfile(path))
    _state_dict_of(content, path, key)


def _require_safetensors(path: str, key: str) -> None:
    try:
        import safetensors.torch  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{key} names {path}, and the package that reads it is missing: "
            "run `pip install safetensors`"
        ) from error


def _read_safetensors(path: str, key: str) -> dict[str, torch.Tensor]:
    _require_safetensors(path, key)
    from safetensors.torch import load_file

    with _unreadable_refused(path, key):
        return dict(load_file(path, device="cpu"))


def _read_torchscript(path: str) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        # TorchScript is deprecated, and it is what CLIP's official files are.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        return dict(torch.jit.load(path, map_location="cpu").state_dict())


@contextlib.contextmanager
def _unreadable_refused(path: str, key: str) -> Iterator[None]:
    """Turn whatever a reader raises into an `InputError` that tells what the file is."""
    try:
        yield
    # Any type: the readers parse before they check, so a damaged byte can raise anything
    # (BadZipFile, UnicodeDecodeError, IndexError, struct.error, ...).
    except Exception as error:
        reason, remedy = _explain(path, error)
        raise _unreadable(path, key, reason, remedy) from error


def _unreadable(path: str, key: str, reason: str, remedy: str) -> InputError:
    return InputError(f"{key} names {path}, which cannot be read ({reason}): {remedy}")


def _explain(path: str, error: Exception) -> tuple[str, str]:
    """Why a file cannot be read, by its bytes and its reader's error; and the remedy."""
    fault = find_fault(path)
    if fault:
        return fault, _REMEDIES.get(fault, _AGAIN)
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
        return "it holds Python objects other than tensors", "give a state dict, saved on its own"
    # NotImplementedError is a RuntimeError: zipfile's for archives of later versions.
    tells = isinstance(error, OSError | RuntimeError) and not isinstance(error, NotImplementedError)
    if tells or is_safetensors(path):
        return (str(error).strip() or type(error).__name__).splitlines()[0], _AGAIN
    return "it is no file of torch.save, or a damaged one", _AGAIN


def _report_other_content(path: str, key: str) -> None:
    """Say so where a file with an official name is not the official one; it may well be meant."""
    official = official_file_named(os.path.basename(path))
    if official is None:
        return
    size = os.path.getsize(path)
    if official.size is not None and size != official.size:
        told = f"{size} bytes instead of {official.size}"
    elif not official.digest.matches(found := file_digest(path, "sha256")):
        told = f"SHA-256 {found} instead of {official.sha256}"
    else:
        return
    logger.warning(
        "%s names %s, which has an official name and not the official content (%s)",
        key,
        path,
        told,
    )


def _state_dict_of(content: Any, path: str, key: str) -> dict[str, torch.Tensor]:
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    is_state_dict = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )
    if not is_state_dict or not content:
        raise InputError(
            f"{key} names {path}, which holds no state dict (names and tensors): "
            "give a file of weights"
        )
    # What DistributedDataParallel puts before every name when it is saved wrapped.
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)
