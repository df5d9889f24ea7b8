"""SIGTERM and SIGUSR1 while a run trains: asked to stop, it ends where nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from schnet.engine.agreement import agree_any
from schnet.errors import Preempted

PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they take a machine away: the first by default, the second on wish
(SLURM's `--signal=USR1@<seconds>`)."""


@contextlib.contextmanager
def handling_signals(
    handle: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> Iterator[None]:
    """Call `handle` for the preemption signals while the context is open, or do as it says.

    Afterwards the earlier handlers are in place again. Only the main thread may handle signals:
    in another one the context does nothing.
    """
    earlier: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in PREEMPTION_SIGNALS:
            earlier[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            # None stands for a handler that was not set from Python, and cannot be.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class PreemptionSignals:
    """Notes that a signal came while the context is open; the run asks at the end of each step.

    Attributes:
        received: name of the first signal that came to this process, or None.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.received: str | None = None
        self._stack = contextlib.ExitStack()
        self._interruptible = False

    def __enter__(self) -> PreemptionSignals:
        """Handle the signals."""
        self._stack.enter_context(handling_signals(self._note))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the signals to whom they belonged."""
        self._stack.close()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A stretch that a signal ends at once, since everything is saved; not entered after one.

        Every process must enter it.

        Raises:
            Preempted: a signal came to any process before, or comes to this one meanwhile.
        """
        if agree_any(self.received is not None)[0]:
            raise Preempted
        self._interruptible = True
        try:
            # One that came since the processes agreed has been noted only.
            if self.received is not None:
                raise Preempted
            yield
        finally:
            self._interruptible = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name
        if self._interruptible:
            # Once: a second signal must not break into what closes files after the first.
            self._interruptible = False
            raise Preempted
