"""The processes that a run's parent starts on its machine: watched, signalled and ended together.

Unlike `torch.multiprocessing.spawn` this leaves no files behind, gives the processes' exit codes,
and lets those that end in good order do so.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, NoReturn

from schnet.engine.preemption import handling_signals
from schnet.errors import EXIT_BAD_INPUT, EXIT_PREEMPTED, InputError, Preempted, storage_error

# For the others, when one process of a preempted run has ended: they have saved and agreed, too.
_GRACE_SECONDS = 30.0
# A killed process's sentinel is still held by its loader's workers, until they miss it.
_LOOK_SECONDS = 1.0
# A pipe that nobody reads takes this much; the parent reads when the process has ended.
_MAX_TOLD = 30_000


@dataclass(frozen=True)
class _Child:
    """A process, and what it tells before it ends: (whether it is bad input, text)."""

    process: SpawnProcess
    told: Connection


def run_children(body: Callable[..., Any], ranks: Sequence[int], args: tuple[Any, ...]) -> None:
    """Run `body(rank, *args)` in a process for each rank, until all have ended well.

    SIGTERM and SIGUSR1 are passed on to them meanwhile.

    Args:
        body: a module-level function.
        ranks: its first argument, one a process.
        args: picklable.

    Raises:
        InputError: a process raised it; the others have been stopped.
        SystemExit: a process failed otherwise; its code, or 128 + signal. Or this process was
            interrupted (Ctrl-C); the others have been stopped.
    """
    context = multiprocessing.get_context("spawn")
    children: list[_Child] = []

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.process.is_alive() and child.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.process.pid, number)

    with handling_signals(signal.SIG_IGN):
        # Python's own helper process, which a signal to every process would end otherwise.
        resource_tracker.ensure_running()
    with handling_signals(forward):
        try:
            for rank in ranks:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_run_child, args=(sender, body, rank, args))
                process.start()
                sender.close()
                children.append(_Child(process, receiver))
            _wait_for_all(children)
        except KeyboardInterrupt:
            # They may wait for one another inside a collective, where no interrupt reaches them.
            _kill(children)
            sys.stderr.write("interrupted\n")
            sys.exit(128 + signal.SIGINT)
        except BaseException:
            _kill(children)
            raise


def leave(code: int) -> NoReturn:
    """End this process at once, what it has printed and logged being written.

    Once in many runs the teardown of gloo's threads with the interpreter's aborts the process
    (seen with torch 2.14), as if a run that is done had failed.
    """
    with contextlib.suppress(OSError):  # a full disk
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _wait_for_all(children: Sequence[_Child]) -> None:
    """Return when all have ended well; else end them and raise for the first that failed."""
    while running := [child.process for child in children if child.process.is_alive()]:
        wait([process.sentinel for process in running], _LOOK_SECONDS)
        codes = [child.process.exitcode for child in children]
        if any(code not in (None, 0) for code in codes):
            break
    if any(child.process.exitcode == EXIT_PREEMPTED for child in children):
        until = time.monotonic() + _GRACE_SECONDS
        for child in children:
            child.process.join(max(0.0, until - time.monotonic()))
    # Those that are left wait for the failed one in vain.
    failed = [child for child in children if child.process.exitcode not in (None, 0)]
    _kill(children)
    if failed:
        _raise_failure(failed)


def _kill(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.kill()
        child.process.join()


def _raise_failure(failed: Sequence[_Child]) -> NoReturn:
    told = [found for found in map(_take_told, failed) if found is not None]
    for is_input, text in told:
        if is_input:
            raise InputError(text)
    codes = [child.process.exitcode or 0 for child in failed]
    if EXIT_PREEMPTED in codes:
        sys.exit(EXIT_PREEMPTED)
    if told:
        sys.stderr.write(f"a process of the run failed:\n{told[0][1]}\n")
    elif codes[0] < 0:
        name = signal.Signals(-codes[0]).name
        sys.stderr.write(f"a process of the run was ended by {name}\n")
    sys.exit(codes[0] if codes[0] > 0 else 128 - codes[0])


def _take_told(child: _Child) -> tuple[bool, str] | None:
    try:
        return child.told.recv() if child.told.poll() else None
    except EOFError:
        return None


def _run_child(
    told: Connection, body: Callable[..., Any], rank: int, args: tuple[Any, ...]
) -> None:
    """Be one of the processes; what the user can put right goes to the parent in one sentence."""
    # Ctrl-C reaches every process of a terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        body(rank, *args)
    except Preempted:
        leave(EXIT_PREEMPTED)
    except Exception as error:
        text = str(error) if isinstance(error, InputError) else _worded(error)
        if text is not None:
            told.send((True, text))
            # Skip what would wait for the other processes: the parent stops them.
            leave(EXIT_BAD_INPUT)
        told.send((False, traceback.format_exc()[-_MAX_TOLD:]))
        leave(1)
    # The work is done and the group is left.
    leave(0)


def _worded(error: Exception) -> str | None:
    told = storage_error(error)
    return None if told is None else str(told)


def _end_with_parent() -> None:
    """End this process soon after its parent, which a signal like SIGKILL ends without a word."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
