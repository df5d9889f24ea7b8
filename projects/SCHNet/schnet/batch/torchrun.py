"""Ending under torchrun, which ends all processes as soon as one has failed."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta

from schnet.batch.shard import Shard

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 10


def wait_for_all(shard: Shard, failed: bool) -> None:
    """Let the other processes finish, where this one is about to end with a failure.

    Without it, a photo that cannot be read would end the work of all. It goes by the store that
    torchrun keeps for its processes; where it keeps none, or it is gone, nobody waits: torchrun
    ends some minutes after its first processes, though another machine still works.

    Args:
        shard: this process.
        failed: whether it will end with another exit code than 0.
    """
    environment = os.environ
    if shard.world == 1 or "TORCHELASTIC_RUN_ID" not in environment:
        return
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    try:
        # Asked first, as torch tries again where nobody listens, and prints its call stack.
        socket.create_connection(address, _PATIENCE_SECONDS).close()
        _pass_store(address, shard, failed)
    except (OSError, RuntimeError):  # torch's DistNetworkError is a RuntimeError
        return


def _pass_store(address: tuple[str, int], shard: Shard, failed: bool) -> None:
    """Tell the store that this process is through and, where it failed, wait for the others."""
    from torch.distributed import TCPStore  # it is there, since torchrun is its command

    store = TCPStore(*address, is_master=False, timeout=timedelta(seconds=_PATIENCE_SECONDS))
    key = f"schnet-parse-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    through = store.add(key, 1)
    while failed and through < shard.world:
        time.sleep(_POLL_SECONDS)
        through = store.add(key, 0)
