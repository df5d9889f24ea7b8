"""Installs Detectron2 0.6, patched to run with current NumPy, Pillow and PyTorch.

Detectron2 has no wheel for current PyTorch releases. The package registry has its 0.6 release as a
source archive (`pb1-detectron2`) without the C++ sources. This script fetches that archive with
pip, verifies its SHA-256 before any of its code runs, patches it and installs it into the Python
that runs this script:

* extension modules are dropped (their sources are missing; semantic segmentation uses none of
  them) and a `detectron2._C` that says so on use takes their place;
* aliases that NumPy 1.24 and Pillow 10 removed are replaced;
* the exact pin of `black`, which clashes with current releases, is loosened.

Where a detectron2 is installed already, of any version, nothing is done.

    python tools/install_detectron2.py [--refresh] [--archive pb1-detectron2-0.6.tar.gz]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

DISTRIBUTION = "pb1-detectron2"
REQUIREMENT = DISTRIBUTION + "==0.6"
ARCHIVE_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
PINS = Path(__file__).resolve().parent.parent / "requirements.txt"

# Whole words only: np.bool_, np.int64, np.float32 and the like are alive and stay.
_NUMPY_ALIAS = re.compile(r"(?<![\w.])np\.(bool|int|float|object|str)(?!\w)")
_PILLOW_ALIAS = re.compile(r"(?<![\w.])Image\.LINEAR(?!\w)")

_OPERATORS_STUB = '''\
"""Stands in for Detectron2's compiled operators, which this installation leaves out."""


class OperatorsMissing(AttributeError):
    """A compiled Detectron2 operator was asked for."""


def get_compiler_version():
    """Read by `detectron2.utils.collect_env`."""
    return "none: installed without compiled operators"


def get_cuda_version():
    """Read by `detectron2.utils.collect_env`."""
    return "none: installed without compiled operators"


def has_cuda():
    """Read by `detectron2.utils.collect_env`."""
    return False


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise OperatorsMissing(
        "detectron2._C." + name + " is missing: tools/install_detectron2.py installs Detectron2 "
        "without its compiled operators; for rotated boxes, deformable convolution or the fast "
        "COCO evaluation build Detectron2 from its own repository."
    )
'''


class InstallError(Exception):
    """The installation cannot go on; the message is one line with a remedy."""


def installed_detectron2() -> str | None:
    """Names the detectron2 this Python would import (distribution or folder), None without one.

    A package folder in site-packages without metadata is what an interrupted installation leaves
    behind: it counts as not installed.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return None
    for name in ("detectron2", DISTRIBUTION):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name} {importlib.metadata.version(name)}"
    in_site_packages = "site-packages" in Path(spec.origin).parts
    return None if in_site_packages else f"the checkout {Path(spec.origin).parent}"


def replace_removed_aliases(source: str) -> str:
    """Returns Python source with the aliases that NumPy 1.24 and Pillow 10 removed replaced."""
    return _PILLOW_ALIAS.sub("Image.BILINEAR", _NUMPY_ALIAS.sub(r"\1", source))


def patch_setup(source: str) -> str:
    """Returns Detectron2's setup.py without extension modules and without the pin of black.

    Raises:
        InstallError: if the file is not the setup.py of Detectron2 0.6.
    """
    patched = source
    for old, new in (
        ("ext_modules=get_extensions()", "ext_modules=[]"),
        ('"black==21.4b2"', '"black"'),
    ):
        if old not in patched and new not in patched:
            raise InstallError(f"setup.py of {REQUIREMENT} has no {old}: use the 0.6 release.")
        patched = patched.replace(old, new)
    return patched


def patch_tree(tree: Path) -> None:
    """Patches an unpacked Detectron2 0.6 in place; patching it again changes nothing.

    Args:
        tree: the folder that holds setup.py.

    Raises:
        InstallError: if the folder is not a Detectron2 0.6 source tree.
    """
    setup = tree / "setup.py"
    package = tree / "detectron2"
    if not setup.is_file() or not package.is_dir():
        raise InstallError(f"{tree} is not a Detectron2 source tree: setup.py or detectron2/ lack.")
    setup.write_text(patch_setup(setup.read_text(encoding="utf-8")), encoding="utf-8")
    for folder in (package, tree / "projects"):
        for path in sorted(folder.rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            patched = replace_removed_aliases(source)
            if patched != source:
                path.write_text(patched, encoding="utf-8")
    (package / "_C.py").write_text(_OPERATORS_STUB, encoding="utf-8")


def verify_sha256(archive: Path, expected: str = ARCHIVE_SHA256) -> None:
    """Checks a file's SHA-256.

    Raises:
        InstallError: if it is another than `expected` (64 hex digits).
    """
    actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    if actual != expected:
        raise InstallError(
            f"{archive.name} has SHA-256 {actual} and not {expected}: "
            "do not use this file; fetch it from the package registry anew."
        )


def run_pip(arguments: Sequence[str]) -> None:
    """Runs pip of this Python; its output goes on to the console and is read for the reason.

    Raises:
        InstallError: if pip fails, with its last error line.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            lines.append(line.strip())
    if process.returncode == 0:
        return
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        raise InstallError(
            f"{REQUIREMENT} from the registry has another SHA-256 than {ARCHIVE_SHA256}: "
            "nothing of it was run; check pip's index settings."
        )
    errors = [line for line in lines if line.startswith("ERROR") or "Error: " in line]
    reason = errors[-1] if errors else f"exit code {process.returncode}"
    raise InstallError(f"pip {arguments[0]} failed ({reason}): see its output above, then rerun.")


def download(folder: Path, pip: Callable[[Sequence[str]], None] = run_pip) -> Path:
    """Fetches the source archive into a folder; pip checks its hash before it runs its setup.py.

    Raises:
        InstallError: if pip fails or the hash differs.
    """
    pinned = folder / "detectron2.txt"
    pinned.write_text(f"{REQUIREMENT} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    pip(
        ["download", "--require-hashes", "--no-deps", "--no-build-isolation"]
        + ["--dest", str(folder), "--requirement", str(pinned)]
    )
    archives = sorted(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise InstallError(f"pip download left {len(archives)} archives of {REQUIREMENT}: rerun.")
    return archives[0]


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a verified source archive and returns its single top-level folder.

    Raises:
        InstallError: if the archive does not have exactly one top-level folder.
    """
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)
    trees = [path for path in folder.iterdir() if path.is_dir()]
    if len(trees) != 1:
        raise InstallError(f"{archive.name} holds {len(trees)} folders and not one: fetch it anew.")
    return trees[0]


def install(archive: Path | None = None, pip: Callable[[Sequence[str]], None] = run_pip) -> None:
    """Fetches (unless an archive is given), verifies, patches and installs Detectron2 0.6.

    Args:
        archive: a source archive fetched before, or None to fetch it with pip.
        pip: runs pip with the given arguments.

    Raises:
        InstallError: if PyTorch is missing, the hash differs or pip fails.
    """
    if importlib.util.find_spec("torch") is None:
        raise InstallError(
            "PyTorch is not installed for "
            f"{sys.executable}: install it first (pip install torch), Detectron2's build needs it."
        )
    with tempfile.TemporaryDirectory(prefix="detectron2-") as temporary:
        folder = Path(temporary)
        if archive is None:
            (folder / "download").mkdir()
            archive = download(folder / "download", pip)
        elif not archive.is_file():
            raise InstallError(f"{archive} is not there: give the path of {REQUIREMENT}'s archive.")
        verify_sha256(archive)
        (folder / "source").mkdir()
        tree = unpack(archive, folder / "source")
        patch_tree(tree)
        # This repository's pins hold for Detectron2's own requirements as well.
        pins = ["--constraint", str(PINS)] if PINS.is_file() else []
        pip(["install", "--no-build-isolation", *pins, str(tree)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 0 when a detectron2 is installed at the end, else 2."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="install anew where the installed detectron2 came from this script",
    )
    parser.add_argument("--archive", type=Path, help="use this source archive and fetch nothing")
    options = parser.parse_args(arguments)
    found = installed_detectron2()
    ours = found is not None and found.startswith(DISTRIBUTION)
    if found is not None and not (options.refresh and ours):
        sys.stdout.write(f"detectron2 is installed already ({found}): nothing to do.\n")
        return 0
    try:
        install(options.archive)
    except InstallError as error:
        sys.stderr.write(f"install_detectron2: {error}\n")
        return 2
    sys.stdout.write("detectron2 0.6 is installed, without compiled operators.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
