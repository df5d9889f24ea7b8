"""What `schnet doctor` looks at: packages, devices, weights; and a remedy for each problem.

A package that is missing or broken is what it is there to tell, so that none but Python's own is
imported before it is looked at.
"""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from schnet.errors import InputError
from schnet.versions import UNKNOWN, version_of

MINIMUM_PYTHON = (3, 10)
_PIP = "pip install -e . in the repository (or make env)"


@dataclass(frozen=True)
class Finding:
    """One line of what was found.

    Attributes:
        subject: what was looked at.
        found: what there is.
        remedy: what to do about it; "" where nothing is wrong.
    """

    subject: str
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Package:
    """A package to look at.

    Attributes:
        name: of the distribution.
        module: that it is imported as.
        remedy: what to do where it is missing or broken.
        optional: doing without it is no problem.
    """

    name: str
    module: str
    remedy: str = _PIP
    optional: bool = False


PACKAGES = (
    Package("torch", "torch", "pip install torch (https://pytorch.org has the command)"),
    Package("torchvision", "torchvision", "pip install torchvision, of torch's release"),
    Package("detectron2", "detectron2", "python tools/install_detectron2.py, or build its main"),
    Package("fvcore", "fvcore"),
    Package("segment-anything", "segment_anything"),
    Package("clip-anytorch", "clip"),
    Package("opencv", "cv2", "pip install opencv-python-headless"),
    Package("pillow", "PIL"),
    Package("onnxruntime", "onnxruntime", "pip install 'schnet[onnx]'", optional=True),
    Package("gradio", "gradio", "pip install 'schnet[serve]'", optional=True),
    Package("ray", "ray", "pip install 'schnet[ray]'", optional=True),
)


def examine(weights: str = "") -> Iterator[Finding]:
    """Look at this installation, one thing after the other.

    Args:
        weights: a run's folder, a checkpoint or an exported file to look at too; "" for none.

    Yields:
        What was found, as it is found.
    """
    yield _python()
    own = version_of("schnet")
    yield Finding("schnet", "from a checkout, not installed" if own == UNKNOWN else own)
    for package in PACKAGES:
        yield _examine_package(package)
    for subject, look in (
        ("detectron2's C++ part", _compiled_part),
        ("devices", _devices),
        ("bfloat16 on the CPU", _bfloat16),
        ("weights' cache", _cache_folder),
    ):
        yield _guarded(subject, look)
    yield from _official_files()
    if weights:
        yield _guarded(f"weights {weights}", lambda: _given_weights(weights))


def _python() -> Finding:
    remedy = ""
    if sys.version_info < MINIMUM_PYTHON:
        remedy = f"install Python {'.'.join(map(str, MINIMUM_PYTHON))} or newer"
    return Finding("python", f"{platform.python_version()} on {platform.platform()}", remedy)


def _examine_package(package: Package) -> Finding:
    try:
        module = importlib.import_module(package.module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package.module:
            return Finding(package.name, f"broken: {_one_line(error)}", package.remedy)
        if package.optional:
            return Finding(package.name, f"not installed ({package.remedy}, where it is wanted)")
        return Finding(package.name, "not installed", package.remedy)
    except Exception as error:  # whatever a broken package raises is what is to be told
        return Finding(package.name, f"broken: {_one_line(error)}", package.remedy)
    found = version_of(package.name)
    return Finding(package.name, _own_version(module) if found == UNKNOWN else found)


def _own_version(module: ModuleType) -> str:
    return str(getattr(module, "__version__", "of unknown version"))


def _guarded(subject: str, look: Callable[[], Finding]) -> Finding:
    """A look that may need a package which is broken."""
    try:
        return look()
    except InputError as error:  # a sentence with its remedy
        return Finding(subject, "cannot be used", _one_line(error))
    except Exception as error:  # as above
        return Finding(subject, f"cannot be told: {_one_line(error)}", _PIP)


def _compiled_part() -> Finding:
    import detectron2

    subject = "detectron2's C++ part"
    left_out = Finding(subject, "left out; semantic segmentation does without it")
    try:
        from detectron2 import _C
    except ModuleNotFoundError as error:
        if error.name != f"{detectron2.__name__}._C":
            raise
        return left_out
    except ImportError as error:
        # Of a package without such a module `from` says this; of a broken one it names a library.
        if "cannot import name" not in str(error):
            raise
        return left_out
    return left_out if getattr(_C, "__file__", "").endswith(".py") else Finding(subject, "there")


def _devices() -> Finding:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found = [f"CUDA {torch.version.cuda}: {', '.join(names)}"] if names else []
    if torch.backends.mps.is_available():
        found.append("MPS")
    found.append(f"CPU, {torch.get_num_threads()} threads")
    return Finding("devices", "; ".join(found))


def _bfloat16() -> Finding:
    import torch

    from schnet.native_types import computes_in_bfloat16

    there = computes_in_bfloat16(torch.device("cpu"))
    return Finding("bfloat16 on the CPU", "by units of its own" if there else "not by units")


def _cache_folder() -> Finding:
    from iopath.common.file_io import get_cache_dir

    folder = Path(get_cache_dir())
    return Finding("weights' cache", f"{folder}{'' if folder.is_dir() else ' (not made yet)'}")


def _official_files() -> Iterator[Finding]:
    """The official files of SAM and CLIP that the cache holds, with their digests."""
    try:
        from schnet.downloads import cached_path, file_digest
        from schnet.official_weights import OFFICIAL_WEIGHTS
    except Exception as error:  # a package that they need was told to be broken above
        yield Finding("official weights", "cannot be told", _one_line(error))
        return
    there = {name: cached_path(file.url) for name, file in OFFICIAL_WEIGHTS.items()}
    there = {name: path for name, path in there.items() if path.is_file()}
    if not there:
        names = ", ".join(OFFICIAL_WEIGHTS)
        yield Finding("official weights", f"none downloaded yet (of {names})")
    for name, path in there.items():
        found = file_digest(path, "sha256")
        good = OFFICIAL_WEIGHTS[name].digest.matches(found)
        remedy = "" if good else f"delete {path}: it is not the file that its authors published"
        told = f"{path}, SHA-256 {found[:12]}… {'as' if good else 'NOT as'} published"
        yield Finding(name, told, remedy)


def _given_weights(weights: str) -> Finding:
    from schnet.downloads import file_digest
    from schnet.engines import ONNX, engine_of, load_photo_parser

    subject = f"weights {weights}"
    if engine_of(weights) == ONNX:
        parser = load_photo_parser(weights, ONNX)
        told = f"an exported graph of {len(parser.classes)} classes"
        return Finding(subject, f"{told}, SHA-256 {file_digest(weights, 'sha256')[:12]}…")
    from schnet.trained import trained_config
    from schnet.weight_files import check_weights

    cfg = trained_config(weights)
    file = check_weights(cfg.MODEL.WEIGHTS, "--weights")
    told = f"{file}, {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES} classes, SAM {cfg.MODEL.SAM.VARIANT}"
    told += f", SHA-256 {file_digest(file, 'sha256')[:12]}…, device {cfg.MODEL.DEVICE}"
    return Finding(subject, told)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
