"""Memory and page faults of a computation in the process that runs it."""

from __future__ import annotations

import gc
import os
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# glibc gives freed memory back at once, so that the peak is of what was alive, and the same
# bytes are not hidden in what an earlier computation left in the heap.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_ARENA_MAX": "1",
}
_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """What a computation took, in bytes of resident memory.

    Attributes:
        extra: its peak over what was there after the warm-up.
        kept: what the warm-up left behind for good: libraries, packed weights, buffers.
    """

    extra: int
    kept: int


def can_measure() -> bool:
    """Whether this system tells a process's peak and lets it be reset (Linux)."""
    return os.access(_RESET, os.W_OK)


def measure_memory(run: Callable[[], object], warm_up: Callable[[], object]) -> Memory | None:
    """Measure the peak of one computation.

    Args:
        run: the computation.
        warm_up: the same computation, as small as it can be: makes what is made once.

    Returns:
        The memory, or None where `can_measure` says no.
    """
    if not can_measure():
        return None
    gc.collect()
    before = _resident("VmRSS")
    warm_up()
    gc.collect()
    ready = _resident("VmRSS")
    _RESET.write_text("5", encoding="ascii")
    run()
    return Memory(extra=max(0, _resident("VmHWM") - ready), kept=max(0, ready - before))


def page_faults() -> int:
    """Pages that the process has touched for the first time so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{_STATUS} has no {name}"
    return int(found[1]) * 1024
