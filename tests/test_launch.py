"""Processes of a run: how many, in which group, and how their failures come back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import launch_bodies
import pytest

from schnet.engine import launch as launching
from schnet.engine.launch import ProcessLayout, launch, plan_processes
from schnet.errors import InputError

TWO = ProcessLayout(2, 1, 0, "gloo", "auto")


@pytest.fixture(autouse=True)
def _no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*launching.TORCHRUN_VARIABLES, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    # The spawned processes find the bodies as this one does.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


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
    context = launching.mp.get_context("spawn")
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


def test_defect_shows_its_traceback_and_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        launch(launch_bodies.crash, TWO)
    assert caught.value.code == 1
    assert "ZeroDivisionError: a defect" in capfd.readouterr().err


def test_killed_process_gives_its_signal() -> None:
    with pytest.raises(SystemExit) as caught:
        launch(launch_bodies.die, TWO)
    assert caught.value.code == 128 + 9
