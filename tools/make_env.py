"""Makes the virtual environment `.venv` with the pinned dependencies (`make env`).

Runs with the standard library alone, and its syntax parses with Python 3.6: so that an old Python
can say that it is too old. Running it again reuses the environment while the dependency files are
unchanged, completes it after an interruption and brings it up to date after a change.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, TextIO, Tuple

ROOT = Path(__file__).resolve().parent.parent
DETECTRON2_SCRIPT = "tools/install_detectron2.py"
DEPENDENCY_FILES = ("requirements.txt", "setup.cfg", "pyproject.toml", DETECTRON2_SCRIPT)
MINIMUM_PYTHON = (3, 11)  # the pinned NumPy, SciPy and Matplotlib need it
NEEDED_GB = 10  # 6 GB installed, the rest for what pip downloads meanwhile
RERUN = "then run `make env` again"
LOG_TAIL_LINES = 15
CREATING, INSTALLING, COMPLETE = "creating", "installing", "complete"

Step = Tuple[str, List[str]]


class EnvError(Exception):
    """The environment cannot be made; the message is one line with a remedy."""


def fingerprint(root: Path) -> Dict[str, str]:
    """Returns the SHA-256 of each dependency file, and the folder the environment is tied to.

    By content and not by time: a fresh clone has new times on unchanged files.
    """
    files = {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in DEPENDENCY_FILES
    }
    files["root"] = str(root)
    return files


def read_stamp(venv: Path) -> Optional[Dict[str, Any]]:
    """Returns what `write_stamp` wrote; {} if it is unreadable, None if there is none."""
    try:
        stamp = json.loads((venv / ".stamp").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, files: Dict[str, str], state: str) -> None:
    """Records, atomically, the dependency files last installed, and CREATING to COMPLETE."""
    temporary = venv / ".stamp.new"
    temporary.write_text(json.dumps({"state": state, "files": files}), encoding="utf-8")
    os.replace(str(temporary), str(venv / ".stamp"))


def venv_python(venv: Path) -> Path:
    """Returns the environment's interpreter."""
    return venv / "bin" / "python"


def is_current(root: Path) -> bool:
    """Whether `.venv` is complete and was made from the dependency files as they are now."""
    venv = root / ".venv"
    stamp = read_stamp(venv) or {}
    return (
        stamp.get("state") == COMPLETE
        and stamp.get("files") == fingerprint(root)
        and venv_python(venv).exists()
    )


def check_python(version: Tuple[int, ...], executable: str) -> None:
    """Raises EnvError if the Python that would make the environment is too old."""
    if tuple(version[:2]) < MINIMUM_PYTHON:
        found = ".".join(str(part) for part in version[:3])
        raise EnvError(
            "Python {} ({}) is too old: install Python {}.{} or newer, or name one: "
            "make env PYTHON=/path/to/python3.11".format(found, executable, *MINIMUM_PYTHON)
        )


def check_venv_module(find_spec: Callable[[str], Any] = importlib.util.find_spec) -> None:
    """Raises EnvError if this Python cannot make virtual environments (Debian splits them off)."""
    for name in ("venv", "ensurepip"):
        if find_spec(name) is None:
            raise EnvError(
                "{} has no module {}: install it (on Debian and Ubuntu: apt install "
                "python{}.{}-venv), {}.".format(sys.executable, name, *sys.version_info[:2], RERUN)
            )


def check_disk(folder: Path, disk_usage: Callable[[str], Any] = shutil.disk_usage) -> None:
    """Raises EnvError if the folder's disk has less room than an environment takes."""
    free_gb = disk_usage(str(folder)).free / 1e9
    if free_gb < NEEDED_GB:
        raise EnvError(
            "the disk of {} has {:.1f} GB free and the environment needs {}: free some space, "
            "{}.".format(folder, free_gb, NEEDED_GB, RERUN)
        )


def failure_message(title: str, output: str, log: Path) -> str:
    """Returns one line that says why a step failed, by its output, and what to do."""
    errors = [line.strip() for line in output.splitlines() if line.strip()]
    prefix = "install_detectron2: "
    own = [line[len(prefix) :] for line in errors if line.startswith(prefix)]
    lowered = output.lower()
    if "no space left on device" in lowered or "disk quota exceeded" in lowered:
        reason = (
            "the disk became full: free {} GB for {} and for the temporary files (TMPDIR)".format(
                NEEDED_GB, log.parent
            )
        )
    elif "do not match the hashes" in lowered and own:
        reason = own[-1]
    elif any(
        sign in lowered
        for sign in ("newconnectionerror", "max retries", "timed out", "name resolution")
    ):
        reason = "pip cannot reach its package index: check the network and `pip config list`"
    elif "no matching distribution found" in lowered:
        missing = [line for line in errors if "No matching distribution found" in line][-1]
        reason = "{}: check the network, pip's index (`pip config list`) and the Python version"
        reason = reason.format(missing.replace("ERROR: ", ""))
    else:
        reason = own[-1] if own else "see the lines above and {}".format(log)
    return "'{}' failed: {}; {}.".format(title, reason.rstrip(".;"), RERUN)


def pip_environment() -> Dict[str, str]:
    """Returns this process's environment without what would send pip's packages elsewhere."""
    environment = dict(os.environ)
    for name in ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX"):
        environment.pop(name, None)
    environment.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    return environment


def run_step(label: str, command: List[str], log: Path, out: TextIO) -> None:
    """Runs a command with its output in the log and the time it takes on `out`.

    Raises:
        EnvError: if it fails; the end of its output was written to `out`.
    """
    start = time.monotonic()
    out.write("{} ...".format(label))
    out.flush()
    with log.open("ab") as sink:
        begin = sink.tell()
        sink.write("$ {}\n".format(" ".join(command)).encode())
        sink.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=pip_environment(),
        )
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if out.isatty():
                    out.write("\r{} ... {:.0f} s".format(label, time.monotonic() - start))
                    out.flush()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    end = "\r" + label + " ..." if out.isatty() else ""
    out.write("{} {:.0f} s\n".format(end, time.monotonic() - start))
    if process.returncode != 0:
        with log.open("rb") as source:
            source.seek(begin)
            output = source.read().decode("utf-8", "replace")
        out.write("\n".join(output.splitlines()[-LOG_TAIL_LINES:]) + "\n")
        raise EnvError(failure_message(label, output, log))


def works(venv: Path) -> bool:
    """Whether the environment has a Python, new enough, with pip."""
    code = "import sys, pip; sys.exit(sys.version_info[:2] < {!r})".format(MINIMUM_PYTHON)
    python = venv_python(venv)
    return (
        python.exists()
        and subprocess.call(
            [str(python), "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        == 0
    )


def creation_steps(root: Path) -> List[Step]:
    """Returns the steps that make an empty environment, none where one works already.

    Raises:
        EnvError: if this Python cannot make one, the disk is too full, or `.venv` is something
            that `make env` has not made.
    """
    venv = root / ".venv"
    # A creation cut short can look as if it worked: pip is there, its commands are not yet.
    if (read_stamp(venv) or {}).get("state") != CREATING and works(venv):
        return []
    # Only the stamp shows that `make env` made the folder: anything else is not ours to clear.
    if venv.exists() and read_stamp(venv) is None and any(venv.iterdir()):
        raise EnvError(
            "{} has no working Python {}.{} and was not made by `make env`: move it away, "
            "{}.".format(venv, *MINIMUM_PYTHON, RERUN)
        )
    check_python(tuple(sys.version_info[:3]), sys.executable)
    check_venv_module()
    check_disk(root)
    command = [sys.executable, "-m", "venv", str(venv)]
    return [("a virtual environment with Python " + platform.python_version(), command)]


def drop_partial_packages(venv: Path) -> None:
    """Removes the metadata of packages that pip was cut off at, so that it installs them anew.

    pip copies a package's files in any order and writes INSTALLER and RECORD last.
    """
    for metadata in venv.glob("lib/python*/site-packages/*.dist-info"):
        if not ((metadata / "INSTALLER").exists() and (metadata / "RECORD").exists()):
            shutil.rmtree(str(metadata))


def clear(venv: Path) -> None:
    """Empties the environment's folder but for the stamp, so that an interruption stays ours."""
    for path in venv.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        elif path.name != ".stamp":
            path.unlink()


def install_steps(root: Path, refresh_detectron2: bool) -> List[Step]:
    """Returns the steps that bring an environment to the pinned packages, in their order."""
    python = str(venv_python(root / ".venv"))
    pip = [python, "-m", "pip", "install"]
    pins = str(root / "requirements.txt")
    detectron2 = [python, str(root / DETECTRON2_SCRIPT)]
    return [
        ("the pinned build tools", pip + ["--constraint", pins, "setuptools", "wheel"]),
        (
            "PyTorch and the other pinned packages (the long one)",
            pip + ["--no-build-isolation", "--requirement", pins],
        ),
        ("Detectron2 0.6", detectron2 + (["--refresh"] if refresh_detectron2 else [])),
        (
            "this package, editable",
            pip + ["--no-build-isolation", "--no-deps", "--editable", str(root)],
        ),
    ]


@contextlib.contextmanager
def lock(root: Path, out: TextIO) -> Iterator[None]:
    """Keeps a second `make env` in the same clone waiting: two at once spoil the environment."""
    with open(str(root / DETECTRON2_SCRIPT), "r+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            out.write("waiting for another `make env` in {} ...\n".format(root))
            out.flush()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def make_env(root: Path, out: TextIO) -> None:
    """Makes, completes or updates the environment; does nothing where it is current.

    Raises:
        EnvError: if a precondition or a step fails.
    """
    venv = root / ".venv"
    if is_current(root):
        out.write(".venv is up to date.\n")
        return
    with lock(root, out):
        if is_current(root):
            return
        target = fingerprint(root)
        recorded = (read_stamp(venv) or {}).get("files") or {}
        refresh = (
            recorded.get(DETECTRON2_SCRIPT, target[DETECTRON2_SCRIPT])
            != (target[DETECTRON2_SCRIPT])
        )
        creation = creation_steps(root)
        venv.mkdir(exist_ok=True)
        log = venv / "install.log"
        if creation:
            write_stamp(venv, {}, CREATING)
            clear(venv)
        else:
            drop_partial_packages(venv)
        steps = creation + install_steps(root, refresh and not creation)
        for number, (title, command) in enumerate(steps, 1):
            if number > len(creation):
                write_stamp(venv, {} if creation else recorded, INSTALLING)
            run_step("[{}/{}] {}".format(number, len(steps), title), command, log, out)
        write_stamp(venv, target, COMPLETE)
        out.write(".venv is ready.\n")


def main() -> int:
    """Command line; returns 0, 2 for a problem with a remedy, 130 when interrupted."""
    try:
        make_env(ROOT, sys.stdout)
    except EnvError as error:
        sys.stdout.flush()
        sys.stderr.write("make env: {}\n".format(error))
        return 2
    except OSError as error:
        sys.stderr.write(
            "make env: {}: check the disk and its permissions, {}.\n".format(error, RERUN)
        )
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nmake env: interrupted; run `make env` again to go on.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
