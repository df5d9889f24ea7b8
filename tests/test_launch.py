"""Processes of a run: how many, in which group, and how their failures come back."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import launch_bodies
import pytest
import torch
from detectron2.utils import comm
from spawned import TWO, prepare_spawning

from schnet.engine import launch as launching
from schnet.engine.launch import ProcessLayout, launch, plan_processes
from schnet.errors import InputError


@pytest.fixture(autouse=True)
def _no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_spawning(monkeypatch)


def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(launching.torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(launching.torch.cuda, "device_count", lambda: count)


def test_cpu_set_explicitly_makes_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 0)
    layout = plan_processes("cpu", 4, 2, 1, "tcp://h:1")
    assert (layout.backend, layout.world_size) == ("gloo", 8)


def test_gpus_make_processes_as_far_as_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 4)
    assert plan_processes("cuda", 4, 1, 0, "auto").backend == "nccl"
    with pytest.raises(InputError, match="--num-gpus 8 asks for more GPUs than the 4"):
        plan_processes("cuda", 8, 1, 0, "auto")


def test_without_gpu_one_process_falls_back_and_more_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _gpus(monkeypatch, 0)
    assert plan_processes("cuda", 1, 1, 0, "auto").world_size == 1
    with pytest.raises(InputError, match="than the 0 of this machine.*MODEL.DEVICE cpu for 2"):
        plan_processes("cuda", 2, 1, 0, "auto")
    with pytest.raises(InputError, match="than the 0 of this machine"):
        plan_processes("cuda", 1, 2, 0, "tcp://h:1")


@pytest.mark.parametrize("numbers", [(0, 1, 0), (1, 0, 0), (1, 2, 2), (1, 1, -1)])
def test_impossible_numbers_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="do not go together"):
        plan_processes("cpu", *numbers, "tcp://h:1")


def test_several_machines_need_an_address() -> None:
    with pytest.raises(InputError, match="needs --dist-url"):
        plan_processes("cpu", 1, 2, 0, "auto")


def test_one_process_is_this_one() -> None:
    assert launch(os.getpid, ProcessLayout(1, 1, 0, "gloo", "auto")) == os.getpid()


def test_torchrun_with_one_process_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(launching.TORCHRUN_VARIABLES, ("0", "1", "0", "h"), strict=True):
        monkeypatch.setenv(name, value)
    assert launch(os.getpid, TWO) == os.getpid()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="WORLD_SIZE is 'two'"):
        launch(os.getpid, TWO)


def test_torchrun_environment_is_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout says one process, the environment two: the environment counts."""
    port = launching._free_port()
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    children = []
    context = multiprocessing.get_context("spawn")
    for rank in range(2):
        for name, value in {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MASTER_PORT", str(port))
        layout = ProcessLayout(1, 1, 0, "gloo", "auto")
        child = context.Process(
            target=launch, args=(launch_bodies.write_ranks, layout, (str(tmp_path),))
        )
        child.start()
        children.append(child)
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    _assert_two_ranks(tmp_path)


def test_two_cpu_processes_are_one_group(tmp_path: Path) -> None:
    assert launch(launch_bodies.write_ranks, TWO, (str(tmp_path),)) is None
    _assert_two_ranks(tmp_path)


def _assert_two_ranks(folder: Path) -> None:
    for rank in range(2):
        facts = json.loads((folder / f"{rank}.json").read_text())
        assert facts == {"world_size": 2, "local_rank": rank, "local_size": 2, "sum": 3}


@pytest.mark.parametrize(
    "body", [launch_bodies.refuse_on_rank_one, launch_bodies.refuse_everywhere]
)
def test_bad_input_comes_back_once_and_stops_all(
    capfd: pytest.CaptureFixture[str], body: Callable[[], None]
) -> None:
    with pytest.raises(InputError, match="^photos/a.jpg is not an image: replace it$"):
        launch(body, TWO)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the platform's own way is kept")
def test_workers_of_spawned_processes_are_forked(tmp_path: Path) -> None:
    """Spawned ones would import all anew at every evaluation."""
    launch(launch_bodies.write_worker_start, TWO, (str(tmp_path),))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["fork", "fork"]


def test_cpu_processes_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    # What torch would take by itself: more than there is for each, whatever this machine has.
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores + 2))
    launch(write_threads, TWO, (str(tmp_path),))
    counts = [int((tmp_path / f"{rank}").read_text()) for rank in range(2)]
    assert max(counts) <= max(1, cores // 2)


def write_threads(folder: str) -> None:
    """Body of a process: write how many threads torch takes."""
    (Path(folder) / str(comm.get_rank())).write_text(str(torch.get_num_threads()))


def test_full_disk_in_a_process_comes_back_as_bad_input(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="^out/metrics.json cannot be .*No space.*: free space or"):
        launch(fill_disk, TWO)
    assert "Traceback" not in capfd.readouterr().err


def fill_disk() -> None:
    """Body of a process: the main one meets a full disk while the other waits for it."""
    if comm.is_main_process():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/metrics.json")
    comm.synchronize()


def test_other_system_error_in_a_process_is_a_defect(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        launch(lose_file, TWO)
    assert caught.value.code == 1
    assert "FileNotFoundError: a defect" in capfd.readouterr().err


def lose_file() -> None:
    """Body of a process: fail by a defect that is an OSError."""
    raise FileNotFoundError("a defect")


def test_interrupt_stops_the_processes_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts its background jobs deaf to SIGINT, and the tests may be one.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(SystemExit) as caught:
            launch(wait_long, TWO, (str(tmp_path),))
    finally:
        thread.join()
        signal.signal(signal.SIGINT, earlier)
    assert caught.value.code == 128 + signal.SIGINT
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
    shown = capfd.readouterr().err
    assert "interrupted" in shown and "Traceback" not in shown


def wait_long(folder: str) -> None:
    """Body of a process: tell the process's number and be busy, deaf to interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_reaches_all_processes_and_the_code_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def send() -> None:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    earlier = signal.getsignal(number)
    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(SystemExit) as caught:
        launch(launch_bodies.stop_on_signal, TWO, (str(tmp_path),))
    thread.join()
    assert caught.value.code == 75
    assert signal.getsignal(number) == earlier
    # The slower one has come to its end: it was not killed when the first was done.
    assert {p.read_text() for p in tmp_path.iterdir()} == {f"stopped by {number.name}"}
    assert "Traceback" not in capfd.readouterr().err


def test_two_machines_are_one_group(tmp_path: Path) -> None:
    """Two launchers of one process each, as on two machines, meet on this one."""
    port = launching._free_port()
    script = (
        "import sys, launch_bodies\n"
        "from schnet.engine.launch import launch, plan_processes\n"
        "if __name__ == '__main__':\n"
        f"    layout = plan_processes('cpu', 1, 2, int(sys.argv[1]), 'tcp://127.0.0.1:{port}')\n"
        f"    launch(launch_bodies.write_ranks, layout, ({str(tmp_path)!r},))\n"
    )
    (tmp_path / "machine.py").write_text(script)
    machines = [
        subprocess.Popen([sys.executable, str(tmp_path / "machine.py"), str(rank)])
        for rank in (1, 0)
    ]
    assert [machine.wait(120) for machine in machines] == [0, 0]
    for rank in range(2):
        facts = json.loads((tmp_path / f"{rank}.json").read_text())
        assert facts == {"world_size": 2, "local_rank": 0, "local_size": 1, "sum": 3}


def test_launcher_leaves_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    for body in (launch_bodies.crash, launch_bodies.die):
        with pytest.raises(SystemExit):
            launch(body, TWO)
    assert list(temporary.iterdir()) == []


def test_defect_shows_its_traceback_and_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        launch(launch_bodies.crash, TWO)
    assert caught.value.code == 1
    assert "ZeroDivisionError: a defect" in capfd.readouterr().err


def test_killed_process_gives_its_signal() -> None:
    with pytest.raises(SystemExit) as caught:
        launch(launch_bodies.die, TWO)
    assert caught.value.code == 128 + 9


def test_killed_process_is_seen_while_its_workers_live_on(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        launch(launch_bodies.die_before_a_worker, TWO, (str(tmp_path),))
    (tmp_path / "over").touch()
    assert not (tmp_path / "waited_for").exists()


_BACKGROUND_JOB = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's background jobs have it
import launch_bodies
from schnet.engine.launch import ProcessLayout, launch
if __name__ == "__main__":
    launch(launch_bodies.wait_for_ever, ProcessLayout(2, 1, 0, "gloo", "auto"), (sys.argv[1],))
"""


def _is_running(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's process files")
def test_killing_a_background_job_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(_BACKGROUND_JOB)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    files = [tmp_path / f"{rank}.pid" for rank in (0, 1)]
    _wait_until(lambda: all(f.exists() and f.read_text() for f in files), 120)
    pids = [int(f.read_text()) for f in files]
    parent.kill()
    parent.wait()
    try:
        _wait_until(lambda: not any(_is_running(pid) for pid in pids), 30)
    finally:
        for pid in filter(_is_running, pids):
            os.kill(pid, signal.SIGKILL)


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
