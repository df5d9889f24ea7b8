"""Runs that torchrun or SLURM start again, and by what a run knows that it is one of these."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from schnet.errors import InputError

LAUNCH_FILE = "launch.txt"
"""In OUTPUT_DIR: which launches have worked on the run; a restart of another launch that was
refused this folder must not continue what is in it."""


def find_restart(folder: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> str:
    """Tell whether this process belongs to a restart of a launch that has worked on a run.

    Args:
        folder: the run's.
        env: the environment; TORCHELASTIC_RESTART_COUNT and SLURM_RESTART_COUNT count.

    Returns:
        The variable that says so and its value; "" where this is no such restart.

    Raises:
        InputError: a restart count is no number.
    """
    try:
        known = (Path(folder) / LAUNCH_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        known = []
    for variable, launch in _launches(env):
        count = env.get(variable) or "0"
        if not count.isdecimal():
            raise InputError(
                f"the environment variable {variable} is {count!r}: it is set to a number where a "
                "run is started again; unset it"
            )
        if int(count) > 0 and launch in known:
            return f"{variable} is {count}"
    return ""


def note_launch(folder: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> None:
    """Note in the run's folder which launch works on it; nothing where nobody would restart it."""
    file = Path(folder) / LAUNCH_FILE
    known = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    new = [launch for _, launch in _launches(env) if launch not in known]
    if new:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as stream:
            stream.writelines(f"{launch}\n" for launch in new)


def _launches(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variable that counts restarts and what stays the same over them."""
    run_id = env.get("TORCHELASTIC_RUN_ID")
    if run_id is not None:
        # Without --rdzv-id all runs are called 'none': the process that restarts this one counts.
        own = f"{socket.gethostname()} {os.getppid()}" if run_id == "none" else run_id
        yield "TORCHELASTIC_RESTART_COUNT", f"torchrun {own}"
    if "SLURM_JOB_ID" in env:
        yield "SLURM_RESTART_COUNT", f"slurm {env['SLURM_JOB_ID']}"
