"""Waiting for the others under torchrun, also where torchrun is gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch.distributed

from schnet.batch import torchrun
from schnet.batch.shard import Shard


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make it look as if torchrun had started this process, with its store at a port."""

    def launch(port: int) -> None:
        told = {
            "TORCHELASTIC_RUN_ID": "a",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for name, value in told.items():
            monkeypatch.setenv(name, value)

    return launch


@pytest.mark.parametrize("failed", [True, False])
def test_where_the_store_is_gone_nobody_waits(
    launched: Callable[[int], None], failed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    launched(port)
    begun = time.monotonic()
    torchrun.wait_for_all(Shard(1, 2), failed)
    assert time.monotonic() - begun < 5
    assert capfd.readouterr().err == ""  # torch would print its own call stack


def test_a_store_that_goes_while_others_are_waited_for(
    launched: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store: list[Any] = [
        torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ]
    launched(store[0].port)
    looks: list[float] = []

    def rest(seconds: float) -> None:
        looks.append(seconds)
        store.clear()  # as torchrun ends

    monkeypatch.setattr(torchrun.time, "sleep", rest)
    torchrun.wait_for_all(Shard(0, 2), True)
    assert len(looks) == 1


def test_a_failed_process_waits_for_the_others(
    launched: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launched(store.port)
    looks: list[float] = []

    def rest(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            torchrun.wait_for_all(Shard(1, 2), False)  # the other is through

    monkeypatch.setattr(torchrun.time, "sleep", rest)
    torchrun.wait_for_all(Shard(0, 2), True)
    assert len(looks) == 3
