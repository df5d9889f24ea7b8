"""What test_launch.py runs in spawned processes: importable there, and quick to import."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

from detectron2.utils import comm

from schnet.data.broken import BrokenImages
from schnet.data.loader import MappedImages, _build
from schnet.engine.preemption import PreemptionSignals
from schnet.errors import InputError, Preempted


def write_ranks(folder: str) -> None:
    """Write what each process knows about the group."""
    facts = {
        "world_size": comm.get_world_size(),
        "local_rank": comm.get_local_rank(),
        "local_size": comm.get_local_size(),
        "sum": sum(comm.all_gather(comm.get_rank() + 1)),
    }
    (Path(folder) / f"{comm.get_rank()}.json").write_text(json.dumps(facts))


def write_worker_start(folder: str) -> None:
    """Write how a loader's workers start in this process."""
    loader = _build(MappedImages([{}], dict), [[0]], 1, BrokenImages(0)).loader
    context = loader.multiprocessing_context
    (Path(folder) / f"{comm.get_rank()}.txt").write_text(context.get_start_method())


def refuse_on_rank_one() -> None:
    """Raise bad input on one process while the other waits for it."""
    if comm.get_rank() == 1:
        raise InputError("photos/a.jpg is not an image: replace it")
    comm.synchronize()


def refuse_everywhere() -> None:
    """Raise the same bad input on every process."""
    raise InputError("photos/a.jpg is not an image: replace it")


def crash() -> None:
    """Fail by a defect, on every process."""
    raise ZeroDivisionError("a defect")


def die() -> None:
    """Be killed, as by the system's memory limit; the other process would wait for ever."""
    if comm.get_rank() == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.synchronize()


def die_before_a_worker(folder: str) -> None:
    """Be killed while a process that was forked off lives on, as a loader's worker does."""
    if comm.get_rank() == 0:
        multiprocessing.get_context("fork").Process(target=_outlive, args=(folder,)).start()
    die()


def _outlive(folder: str) -> None:
    for _ in range(300):
        if (Path(folder) / "over").exists():
            return
        time.sleep(0.1)
    (Path(folder) / "waited_for").touch()


def wait_for_ever(folder: str) -> None:
    """Tell this process's number, then wait."""
    (Path(folder) / f"{comm.get_rank()}.pid").write_text(str(os.getpid()))
    time.sleep(600)


def stop_on_signal(folder: str) -> None:
    """Train, as it were, until a signal comes; the main process is the slower one to end."""
    file = Path(folder) / str(os.getpid())
    with PreemptionSignals() as signals:
        file.touch()
        while signals.received is None:
            time.sleep(0.05)
        if comm.is_main_process():
            time.sleep(1)
        file.write_text(f"stopped by {signals.received}")
        raise Preempted
