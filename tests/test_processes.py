"""Several processes: order, early ends, killed workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import cv2
import pytest

from schnet.data.processes import process_map
from schnet.errors import InputError


def double(number: int) -> int:
    return 2 * number


def touch(number: int, folder: Path) -> int:
    """Leave a file and take a moment."""
    (folder / str(number)).touch()
    time.sleep(0.02)
    return number


def settings_of(_: int) -> tuple[int, int, bool]:
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return os.getpid(), cv2.getNumThreads(), ignored


def die_at(number: int, fatal: int) -> int:
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise InputError(f"{number} is no good")


@pytest.mark.parametrize(("jobs", "chunk"), [(1, 1), (2, 1), (3, 4), (2, 100)])
def test_results_come_in_order(jobs: int, chunk: int) -> None:
    with process_map(double, range(20), jobs=jobs, chunk=chunk) as results:
        assert list(results) == [2 * number for number in range(20)]


def test_workers_leave_interrupts_and_cores_alone() -> None:
    with process_map(settings_of, range(8), jobs=2) as results:
        found = list(results)
    assert os.getpid() not in {pid for pid, _, _ in found}
    assert {(threads, ignored) for _, threads, ignored in found} == {(1, True)}
    # One job, or one chunk, is this process's own.
    for jobs, chunk in ((1, 1), (2, 8)):
        with process_map(settings_of, range(8), jobs=jobs, chunk=chunk) as results:
            assert {pid for pid, _, _ in results} == {os.getpid()}


def test_no_more_processes_than_chunks() -> None:
    earlier = len(multiprocessing.active_children())
    with process_map(double, range(20), jobs=50, chunk=8) as results:
        assert len(multiprocessing.active_children()) - earlier <= 3
        assert len(list(results)) == 20


def test_early_end_begins_nothing_more(tmp_path: Path) -> None:
    earlier = set(multiprocessing.active_children())
    work = partial(touch, folder=tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        process_map(work, range(400), jobs=2, chunk=2) as results,
    ):
        assert next(results) == 0
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) < 100
    assert set(multiprocessing.active_children()) <= earlier


def test_killed_worker_is_one_sentence() -> None:
    work = partial(die_at, fatal=5)
    with (
        pytest.raises(InputError, match="process was killed .*smaller --jobs") as caught,
        process_map(work, range(9), jobs=2) as results,
    ):
        list(results)
    assert "\n" not in str(caught.value)


def test_errors_of_the_work_pass() -> None:
    for jobs in (1, 2):
        with (
            pytest.raises(InputError, match="^0 is no good$"),
            process_map(refuse, range(9), jobs=jobs) as results,
        ):
            list(results)


def hang(number: int, folder: Path) -> int:
    (folder / str(os.getpid())).touch()
    time.sleep(120)
    return number


def run_hanging(folder: Path) -> None:
    with process_map(partial(hang, folder=folder), range(2), jobs=2) as results:
        list(results)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("fork").Process(target=run_hanging, args=(tmp_path,))
    parent.start()
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    os.kill(parent.pid or 0, signal.SIGKILL)
    parent.join()
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody may be there to take away."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
