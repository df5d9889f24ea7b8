"""torchrun: a process that is killed costs a restart and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from real_runs import Run, assert_same_runs, until, wait_for
from tiny_lip import make_lip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's process files"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elastic")
    make_lip(path / "data")
    return path


def _torchrun(run: Run, *options: str) -> subprocess.Popen[bytes]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2")
    return run.start(*options, before=(*before, "--master-port", str(port)))


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def test_restarted_run_ends_as_the_undisturbed_one(folder: Path) -> None:
    whole = Run(folder / "whole", folder / "data", "--num-gpus", "2")
    whole.finish()
    run = Run(folder / "restarted", folder / "data")
    agent = _torchrun(run)
    until(lambda: "model_0000011.pth" in run.files(), agent, run.log)
    os.kill(max(_children(agent.pid)), signal.SIGKILL)
    assert wait_for(agent) == 0, run.log.read_text()[-3000:]
    log = run.log.read_text()
    assert "started again (TORCHELASTIC_RESTART_COUNT is 1): --resume auto is implied" in log
    assert_same_runs(whole, run)


def test_restart_does_not_continue_what_the_start_was_refused(folder: Path) -> None:
    run = Run(folder / "refused", folder / "data")
    run.folder.mkdir()
    (run.folder / "model_init.pth").write_bytes(b"of another run")
    assert wait_for(_torchrun(run)) != 0
    assert (run.folder / "model_init.pth").read_bytes() == b"of another run"
    errors = [x for x in run.log.read_text().splitlines() if x.startswith("error: ")]
    # One for each start of the two processes, and none says that the file cannot be read.
    assert len(errors) == 3
    assert all("holds checkpoints of another run" in line for line in errors)


def test_agent_passes_sigterm_on_and_the_run_is_saved(folder: Path) -> None:
    run = Run(folder / "stopped", folder / "data")
    agent = _torchrun(run)
    until(lambda: "model_0000005.pth" in run.files(), agent, run.log)
    os.kill(agent.pid, signal.SIGTERM)
    wait_for(agent, 60)  # torchrun has an exit code of its own
    assert "is saved: continue with --resume" in run.log.read_text()
    run.finish("--resume", "--num-gpus", "2")
