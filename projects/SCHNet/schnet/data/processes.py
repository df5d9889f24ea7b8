"""Work on many items in several processes: results in order, and an end without noise."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from schnet.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

# How often a process looks whether its parent is still there.
_WATCH_SECONDS = 0.5


@contextlib.contextmanager
def process_map(
    work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int, chunk: int = 1
) -> Iterator[Iterator[Result]]:
    """Give the results of `work` for each item, in their order; a context that ends the processes.

    Where the context is left early, by an error or by Ctrl-C, items not begun are not begun; the
    few that are under way are finished, so that no file is left half written.

    Args:
        work: picklable; its errors are raised where its result is taken.
        items: what to work on.
        jobs: number of processes, >= 1; 1 works in this one, as do few items.
        chunk: items handed to a process at once: enough to make the handing over cheap, few
            enough for a progress bar that moves.

    Yields:
        The results, as they are asked for.

    Raises:
        InputError: the system killed a process, as it does where memory runs out.
    """
    if jobs == 1 or len(items) <= chunk:
        yield map(work, items)
        return
    pool = ProcessPoolExecutor(
        min(jobs, -(-len(items) // chunk)), initializer=_init_worker, initargs=(os.getpid(),)
    )
    try:
        yield pool.map(work, items, chunksize=chunk)
    except BrokenProcessPool:
        raise InputError(
            "a working process was killed from outside, as the system does where memory runs out: "
            "run it again with a smaller --jobs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _init_worker(parent: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # OpenCV's own threads would only get into each other's way, and hang in forked processes.
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process soon after its parent, which a signal like SIGKILL ends without a word."""
    # The pipe that multiprocessing offers for this stays open in forked siblings.
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
