"""Timing of several sides that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

Clock = Callable[[], float]


@dataclass(frozen=True)
class Sample:
    """The times of one side.

    Attributes:
        seconds: one a round, in the order of the rounds.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The shortest and the longest, in seconds."""
        return min(self.seconds), max(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How two sides compare.

    Attributes:
        value: ratio of their medians.
        low: the smallest ratio of one round.
        high: the largest.
    """

    value: float
    low: float
    high: float


def compare(over: Sample, under: Sample) -> Ratio:
    """Divide the times of one side by those of another that was timed in the same rounds.

    Raises:
        ValueError: they have not as many rounds.
    """
    rounds = [a / b for a, b in zip(over.seconds, under.seconds, strict=True)]
    return Ratio(over.median / under.median, min(rounds), max(rounds))


def interleave(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    title: str = "",
    clock: Clock = time.perf_counter,
) -> dict[str, Sample]:
    """Time all sides in turns, after one turn of each that does not count.

    Args:
        sides: what is timed, by name.
        rounds: turns of each that count; at least 1.
        title: of the progress bar.
        clock: gives seconds.

    Returns:
        The times by side.
    """

    def timed(side: str) -> float:
        start = clock()
        sides[side]()
        return clock() - start

    return take_turns(timed, tuple(sides), rounds, title=title)


def take_turns(
    measure: Callable[[str], float], sides: Sequence[str], rounds: int, *, title: str = ""
) -> dict[str, Sample]:
    """Let a function measure all sides in turns, after one turn of each that does not count.

    Every other round runs backwards: no side always comes after the same other one, and finds
    the caches and the processor's clock as that one leaves them.

    Args:
        measure: gives a side's seconds.
        sides: names of the sides.
        rounds: turns of each that count; at least 1.
        title: of the progress bar.

    Returns:
        The times by side.

    Raises:
        ValueError: there is no round.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds measure nothing")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with tqdm(total=(rounds + 1) * len(sides), desc=title, unit="run", leave=False) as bar:
        for turn in range(rounds + 1):
            for side in sides[:: -1 if turn % 2 else 1]:
                value = measure(side)
                if turn:
                    seconds[side].append(value)
                bar.update()
    return {side: Sample(tuple(values)) for side, values in seconds.items()}
