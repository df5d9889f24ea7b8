"""Reading weight files: where they are (path, URL, official name) and what is in them."""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.utils.file_io import PathManager

from schnet.errors import InputError

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"

OFFICIAL_WEIGHTS: dict[str, str] = {
    "sam_vit_b": _SAM_URL + "sam_vit_b_01ec64.pth",
    "sam_vit_l": _SAM_URL + "sam_vit_l_0b3195.pth",
    "sam_vit_h": _SAM_URL + "sam_vit_h_4b8939.pth",
    "clip_rn50": "clip:RN50",
    "clip_rn101": "clip:RN101",
    "clip_rn50x4": "clip:RN50x4",
    "clip_vit_b32": "clip:ViT-B/32",
    "clip_vit_b16": "clip:ViT-B/16",
    "clip_vit_l14": "clip:ViT-L/14",
}
"""Official files by our names: SAM's public addresses (segment_anything's README); for CLIP the
name under which the `clip` package keeps the address."""

_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
_HEAD_BYTES = 1024


def official_url(name: str) -> str:
    """Address of an official weight file.

    Args:
        name: a key of `OFFICIAL_WEIGHTS`.
    """
    address = OFFICIAL_WEIGHTS[name]
    if not address.startswith("clip:"):
        return address
    from clip import clip as clip_package  # slow to import, and only its table is wanted

    return str(clip_package._MODELS[address.removeprefix("clip:")])


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
    url = official_url(weights) if weights in OFFICIAL_WEIGHTS else weights
    if "://" not in url:
        raise InputError(
            f"{key} names {weights}, which is no file: give an existing path, a URL, or one of "
            f"{', '.join(OFFICIAL_WEIGHTS)}"
        )
    try:
        path = PathManager.get_local_path(url)
    except (OSError, ValueError, AssertionError) as error:
        raise InputError(
            f"{key} names {weights} and {url} cannot be fetched ({error}): check the network, or "
            "download the file elsewhere and give its path"
        ) from error
    if not os.path.isfile(path):
        raise InputError(f"{key} names {weights}, which is no file at {path}: correct the address")
    return str(path)


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
    if path.endswith(".safetensors"):
        return _state_dict_of(_read_safetensors(path, key), path, key)
    with _unreadable_refused(path, key):
        content = _read_torchscript(path) if _is_torchscript(path) else _read_pickled(path)
    return _state_dict_of(content, path, key)


def read_torch_file(path: str, key: str) -> Any:
    """Read a file of `torch.save` with `weights_only=True`, on the CPU.

    Raises:
        InputError: PyTorch cannot read it.
    """
    with _unreadable_refused(path, key):
        return _read_pickled(path)


def _read_pickled(path: str) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: str, key: str) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(
            f"{key} names {path}, and the package that reads it is missing: "
            "run `pip install safetensors`"
        ) from error
    with _unreadable_refused(path, key):
        return dict(load_file(path, device="cpu"))


def _is_torchscript(path: str) -> bool:
    """Tell a TorchScript archive from a file of `torch.save`: only it keeps its constants apart."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


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
        raise InputError(
            f"{key} names {path}, which cannot be read ({reason}): {remedy}"
        ) from error


def _explain(path: str, error: Exception) -> tuple[str, str]:
    """Why a file cannot be read, by its first bytes and its reader's error; and the remedy."""
    again = "download or copy it again"
    head = _head_of(path).lstrip(b"\xef\xbb\xbf\t\r\n ").lower()
    if head.startswith(_LFS_HEAD):
        return "a Git-LFS pointer, not a weight file", "run git lfs pull"
    if head.startswith(b"<") and b"html" in head:
        return "an HTML page, not a weight file", "download it again from the file's own address"
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
        return "it holds Python objects other than tensors", "give a state dict, saved on its own"
    # NotImplementedError is a RuntimeError: zipfile's for archives of later versions.
    tells = isinstance(error, OSError | RuntimeError) and not isinstance(error, NotImplementedError)
    if tells or path.endswith(".safetensors"):
        return (str(error).strip() or type(error).__name__).splitlines()[0], again
    return "it is no file of torch.save, or a damaged one", again


def _head_of(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


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
