"""Real runs that are killed or asked to stop, and end as if nothing had happened.

KEEP_CURVES=<folder> keeps the metrics of the undisturbed and of the killed run there, and where
the killed one was resumed, to draw their loss curves.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from real_runs import Run, assert_same_runs, kill, until, wait_for
from tiny_lip import make_lip

pytestmark = pytest.mark.slow

TWO = ("--num-gpus", "2")
Start = Callable[..., Run]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    make_lip(path / "data")
    return path


@pytest.fixture(scope="module")
def pair(folder: Path) -> Run:
    """An undisturbed run of two processes."""
    run = Run(folder / "pair", folder / "data", *TWO)
    run.finish()
    return run


def _marker(run: Run) -> str:
    try:
        return (run.folder / "last_checkpoint").read_text()
    except FileNotFoundError:
        return ""


def _after_checkpoints(run: Run, count: int) -> Callable[[], bool]:
    """A condition that holds when so many more checkpoints have been written."""
    seen = {_marker(run)}

    def holds() -> bool:
        seen.add(_marker(run))
        return len(seen) > count

    return holds


def _kill_at_random(run: Run, rng: random.Random) -> None:
    process = run.start("--resume", "auto")
    until(_after_checkpoints(run, rng.randint(2, 4)), process, run.log)
    time.sleep(rng.uniform(0, 0.4))
    kill(process)


def _kill_while_writing(run: Run) -> None:
    """Until the kill has left a checkpoint half written."""
    for _ in range(6):
        process = run.start("--resume", "auto")
        until(_after_checkpoints(run, 1), process, run.log)
        until(lambda: any(n.endswith(".pth.tmp") for n in run.files()), process, run.log)
        kill(process)
        if any(name.endswith(".pth.tmp") for name in run.files()):
            return
    pytest.fail("no kill hit the writing of a checkpoint")


def test_run_killed_three_times_ends_as_the_undisturbed_one(folder: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"the moments of the kills come from the seed {seed}")
    rng = random.Random(seed)
    whole = Run(folder / "whole", folder / "data")
    whole.finish()
    killed = Run(folder / "killed", folder / "data")
    resumed = []
    for strike in (
        lambda: _kill_at_random(killed, rng),
        lambda: _kill_while_writing(killed),
        lambda: _kill_at_random(killed, rng),
    ):
        strike()
        assert "model_final.pth" not in killed.files()
        resumed.append(_marker(killed))
    killed.finish("--resume", "auto")
    if "KEEP_CURVES" in os.environ:
        kept = Path(os.environ["KEEP_CURVES"])
        kept.mkdir(parents=True, exist_ok=True)
        for run in (whole, killed):
            shutil.copy(run.folder / "metrics.json", kept / f"{run.folder.name}.json")
        (kept / "resumed_from.json").write_text(json.dumps({"seed": seed, "files": resumed}))
    assert_same_runs(whole, killed)
    assert "Traceback" not in killed.log.read_text()


@pytest.mark.parametrize(
    ("number", "to_all", "checkpoints"),
    [(signal.SIGTERM, False, 4), (signal.SIGUSR1, True, 1)],
    ids=["SIGTERM to the parent", "SIGUSR1 to every process, twice, at the first step"],
)
def test_signal_saves_and_exits_with_75(
    folder: Path, pair: Run, number: signal.Signals, to_all: bool, checkpoints: int
) -> None:
    run = Run(folder / number.name, folder / "data", *TWO)
    process = run.start()
    until(_after_checkpoints(run, checkpoints), process, run.log)
    if to_all:
        os.killpg(process.pid, number)
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    assert wait_for(process, 60) == 75
    log = run.log.read_text()
    assert "Traceback" not in log and "Error" not in log
    assert log.count(f"{number.name} came in iteration") == 1
    assert f"{_marker(run)} is saved: continue with --resume" in log
    assert "model_final.pth" not in run.files() and _marker(run) != "model_init.pth"
    run.finish("--resume")
    assert_same_runs(pair, run)


def test_bare_command_prints_no_warning_of_others(folder: Path) -> None:
    run = Run(folder / "none", folder / "data", "--eval-only")
    assert wait_for(run.start(env={"PYTHONWARNINGS": ""})) == 2
    (line,) = [x for x in run.log.read_text().splitlines() if "CUDA_HOME" not in x]
    assert line.startswith("error: --eval-only has no weights")
