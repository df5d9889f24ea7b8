"""Starting the processes of a run and joining them into one group.

Detectron2's own `launch` knows CUDA with NCCL only and hides the children's exit codes. This one
also runs on CPUs with gloo, honours torchrun's environment, and brings a child's `InputError` to
the parent as it was worded; a full disk and the like come as one, too.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.distributed.rendezvous import rendezvous

from schnet.engine.children import leave, run_children
from schnet.errors import InputError, Preempted

TIMEOUT = timedelta(minutes=30)
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")


@dataclass(frozen=True)
class ProcessLayout:
    """Which processes make up a run, and how they talk.

    Attributes:
        local_size: processes on this machine.
        num_machines: machines, each with as many processes.
        machine_rank: this machine, from 0.
        backend: `nccl` (one GPU a process) or `gloo` (CPU).
        init_method: address of the rendezvous, as torch.distributed takes it; `auto` picks a free
            port of this machine.
    """

    local_size: int
    num_machines: int
    machine_rank: int
    backend: str
    init_method: str

    @property
    def world_size(self) -> int:
        """Number of processes on all machines."""
        return self.local_size * self.num_machines


def plan_processes(
    device: str, num_gpus: int, num_machines: int, machine_rank: int, dist_url: str
) -> ProcessLayout:
    """Decide on the processes from the command line and what this machine has.

    Args:
        device: MODEL.DEVICE; `cpu` makes `num_gpus` CPU processes, else each takes a GPU.
        num_gpus: processes on each machine.
        num_machines: machines.
        machine_rank: this machine, from 0.
        dist_url: rendezvous, such as `tcp://10.0.0.1:29500`, or `auto` on one machine.

    Raises:
        InputError: a number is impossible, or there are fewer GPUs than asked for.
    """
    if num_gpus < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise InputError(
            f"--num-gpus {num_gpus}, --num-machines {num_machines} and --machine-rank "
            f"{machine_rank} do not go together: give at least one process on each machine, and "
            "number the machines from 0"
        )
    if num_machines > 1 and dist_url == "auto":
        raise InputError(
            f"--num-machines {num_machines} needs --dist-url: give tcp://<machine 0>:<port>"
        )
    backend = "gloo" if device == "cpu" else "nccl"
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # One process on a machine without a GPU falls back to the CPU (see schnet.setup).
    if backend == "nccl" and num_gpus > found and num_gpus * num_machines > 1:
        raise InputError(
            f"--num-gpus {num_gpus} asks for more GPUs than the {found} of this machine: give a "
            f"lower number, or MODEL.DEVICE cpu for {num_gpus} CPU processes"
        )
    return ProcessLayout(num_gpus, num_machines, machine_rank, backend, dist_url)


def launch(main: Callable[..., Any], layout: ProcessLayout, args: tuple[Any, ...] = ()) -> Any:
    """Run `main(*args)` in every process of a run; under torchrun, this is one of them.

    Args:
        main: a module-level function.
        layout: the processes; torchrun's environment, where there is one, overrides it.
        args: picklable arguments.

    Returns:
        What `main` returned where this process ran it itself, else None. A process that torchrun
        started beside others on CPUs ends here, as `leave` tells why.

    Raises:
        InputError: a process raised it; the others have been stopped.
        SystemExit: a process failed otherwise; its code, or 128 + signal. `EXIT_PREEMPTED`: a
            signal ended the run, which is saved. Or this process was interrupted (Ctrl-C); the
            others have been stopped.
    """
    if all(name in os.environ for name in TORCHRUN_VARIABLES):
        return _run_under_torchrun(main, layout.backend, args)
    if layout.world_size == 1:
        return main(*args)
    init_method = layout.init_method
    if init_method == "auto":
        init_method = f"tcp://127.0.0.1:{_free_port()}"
    run_children(_run_rank, range(layout.local_size), (main, layout, init_method, args))
    return None


def _run_rank(
    local_rank: int,
    main: Callable[..., Any],
    layout: ProcessLayout,
    init_method: str,
    args: tuple[Any, ...],
) -> None:
    """Body of a process that this launcher started."""
    if layout.backend == "gloo":
        # Processes that each take all cores wait for one another most of the time.
        cores = (os.cpu_count() or 1) // layout.local_size
        torch.set_num_threads(max(1, min(cores, torch.get_num_threads())))
    with _process_group(
        backend=layout.backend,
        init_method=init_method,
        rank=layout.machine_rank * layout.local_size + local_rank,
        world_size=layout.world_size,
        local_rank=local_rank,
        local_size=layout.local_size,
    ):
        main(*args)


def _run_under_torchrun(main: Callable[..., Any], backend: str, args: tuple[Any, ...]) -> Any:
    env = os.environ
    rank, world_size, local_rank = (
        _number(env, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    if world_size == 1:
        return main(*args)
    local_size = _number(env, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in env else world_size
    if backend == "nccl" and local_size > torch.cuda.device_count():
        raise InputError(
            f"torchrun starts {local_size} processes here and there are "
            f"{torch.cuda.device_count()} GPUs: start fewer, or give MODEL.DEVICE cpu"
        )
    try:
        with _process_group(
            backend=backend,
            init_method="env://",
            rank=rank,
            world_size=world_size,
            local_rank=local_rank,
            local_size=local_size,
        ):
            result = main(*args)
    except Preempted as stop:
        leave(int(stop.code or 0))
    if backend == "gloo":
        leave(0)
    return result


def _number(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise InputError(
            f"the environment variable {name} is {env[name]!r}: torchrun sets it to a number; "
            "unset it to start without torchrun"
        ) from None


@contextlib.contextmanager
def _process_group(
    *,
    backend: str,
    init_method: str,
    rank: int,
    world_size: int,
    local_rank: int,
    local_size: int,
) -> Iterator[None]:
    """Be part of the group of all processes, and of Detectron2's group of this machine's."""
    if backend == "nccl":
        torch.cuda.set_device(local_rank)
    store, rank, world_size = next(rendezvous(init_method, rank, world_size, timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    if local_size == world_size:
        # torchrun may serve one store to all its restarts, where the addresses of processes that
        # are gone would still stand. (Several machines may count restarts differently.)
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(
        backend=backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT
    )
    _create_local_group(local_size, world_size)
    comm.synchronize()
    yield
    # Left out after an error: the other processes would not join in, and this one would hang.
    comm.synchronize()
    comm._LOCAL_PROCESS_GROUP = None
    dist.destroy_process_group()


def _create_local_group(local_size: int, world_size: int) -> None:
    """Tell Detectron2 which processes share this machine, as 0.6 and as its main branch want it."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(local_size)
        return
    for start in range(0, world_size, local_size):
        group = dist.new_group(list(range(start, start + local_size)))
        if start <= dist.get_rank() < start + local_size:
            comm._LOCAL_PROCESS_GROUP = group


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
