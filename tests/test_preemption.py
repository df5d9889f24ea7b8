"""Signals that ask a run to stop: noted, or obeyed at once, and nobody else's afterwards."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from schnet.engine.preemption import PREEMPTION_SIGNALS, PreemptionSignals
from schnet.errors import EXIT_PREEMPTED, Preempted


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", PREEMPTION_SIGNALS)
def test_signal_is_noted_and_the_earlier_handler_comes_back(number: signal.Signals) -> None:
    seen: list[int] = []
    earlier = signal.signal(number, lambda found, frame: seen.append(found))
    try:
        with PreemptionSignals() as signals:
            assert signals.received is None
            _send(number)
            _send(number)
        assert signals.received == number.name and not seen
        _send(number)
        assert seen == [number]
    finally:
        signal.signal(number, earlier)


def test_first_signal_is_the_one_that_is_told() -> None:
    with PreemptionSignals() as signals:
        _send(signal.SIGUSR1)
        _send(signal.SIGTERM)
    assert signals.received == "SIGUSR1"


def test_interruptible_stretch_ends_at_once_and_only_once() -> None:
    reached = []
    with PreemptionSignals() as signals:
        with pytest.raises(Preempted) as caught, signals.interruptible():
            try:
                _send(signal.SIGTERM)
                reached.append("after the signal")
            finally:
                _send(signal.SIGTERM)  # must not break into closing
                reached.append("closed")
        _send(signal.SIGTERM)
    assert reached == ["closed"]
    assert caught.value.code == EXIT_PREEMPTED == 75


def test_interruptible_stretch_is_not_entered_after_a_signal() -> None:
    with PreemptionSignals() as signals:
        _send(signal.SIGTERM)
        with pytest.raises(Preempted), signals.interruptible():
            raise AssertionError("entered")


def test_after_the_stretch_signals_are_noted_again() -> None:
    with PreemptionSignals() as signals:
        with signals.interruptible():
            pass
        _send(signal.SIGTERM)
    assert signals.received == "SIGTERM"


def test_other_threads_leave_signals_alone() -> None:
    before = [signal.getsignal(number) for number in PREEMPTION_SIGNALS]
    found = []

    def enter() -> None:
        with PreemptionSignals():
            found.extend(signal.getsignal(number) for number in PREEMPTION_SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == before


def test_preemption_is_no_error() -> None:
    assert issubclass(Preempted, SystemExit) and not issubclass(Preempted, Exception)
