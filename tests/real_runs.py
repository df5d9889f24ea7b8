"""Real `train_net.py` processes on the tiny LIP, to be killed and compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_lip import OPTS

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "projects" / "SCHNet" / "configs" / "Base-SCHNet.yaml"
LONG = (
    *("SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "8"),
    *("SOLVER.BASE_LR", "0.001"),
    *("DATALOADER.NUM_WORKERS", "1"),
)
"""A run that is long enough to be killed in; the checkpoints' and evaluations' periods differ."""
# What depends on the machine, not on the run.
CLOCKS = {"time", "data_time", "images_per_second", "eta_seconds", "rank_data_time"}


class Run:
    """A folder, and the processes that train in it one after the other."""

    def __init__(self, folder: Path, data: Path, *options: str, opts: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.options, self.opts = options, opts
        self.log = folder.with_suffix(".log")
        self._env = {
            **{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")},
            "DETECTRON2_DATASETS": str(data),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY / "projects" / "SCHNet"),
            "PYTHONUNBUFFERED": "1",
        }

    def words(self, *options: str) -> list[str]:
        """The command line's words after the interpreter's."""
        return [
            *("train_net.py", "--config-file", str(CONFIG), *self.options, *options),
            *(*OPTS, *LONG, *self.opts, "OUTPUT_DIR", str(self.folder)),
        ]

    def start(
        self, *options: str, before: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own; its output is added to the log.

        `before` are the words after the interpreter's, such as torchrun's.
        """
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, *before, *self.words(*options)],
                cwd=REPOSITORY,
                env={**self._env, **(env or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, *options: str) -> None:
        """Train to the end."""
        assert wait_for(self.start(*options)) == 0, self.log.read_text()[-3000:]

    def files(self) -> set[str]:
        """Names in the folder, hidden ones too."""
        try:
            return set(os.listdir(self.folder))
        except FileNotFoundError:
            return set()

    def final(self) -> dict[str, Any]:
        """The final checkpoint."""
        return torch.load(self.folder / "model_final.pth", weights_only=True)

    def metrics(self) -> dict[int, dict[str, float]]:
        """The last line of each iteration, without the clocks."""
        lines = (self.folder / "metrics.json").read_text().splitlines()
        found = {line["iteration"]: line for line in map(json.loads, lines)}
        return {
            iteration: {k: v for k, v in line.items() if k not in CLOCKS}
            for iteration, line in found.items()
        }


def wait_for(process: subprocess.Popen[bytes], seconds: float = 240) -> int:
    """The exit code; the whole group is killed where it takes too long."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        raise


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Look all the time, so that short moments are seen, until a condition holds."""
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f"ended too early: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, "waited in vain"


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Two nests of dicts, lists and tensors are equal to the bit; NaN equals NaN."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            assert_same(value, second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    else:
        assert first == second or (first != first and second != second), where


def assert_same_runs(whole: Run, parts: Run) -> None:
    """Final weights, optimizer, schedule, results, random numbers and metrics are equal."""
    expected, found = whole.final(), parts.final()
    for content in (expected, found):
        content["trainer"].pop("metrics")  # below; these have the clocks
    assert_same(expected, found)
    metrics = parts.metrics()
    for iteration, line in whole.metrics().items():
        assert_same(line, metrics[iteration], f"metrics of {iteration}")
