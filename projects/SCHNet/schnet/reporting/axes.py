"""Axes of a chart: ranges, ticks, and how their numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Values that span more than this factor are drawn on a logarithmic axis, where that is allowed.
LOG_RATIO = 30.0
MIN_DECADES_PLAIN = 1.8


@dataclass(frozen=True)
class Axis:
    """A range of values, drawn from 0 (low) to 1 (high).

    Attributes:
        low: value at 0.
        high: value at 1; > low.
        ticks: ascending values within the range.
        logarithmic: equal ratios take equal room; low > 0.
    """

    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in [0, 1]; a value beyond an end lies at that end."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)


def value_axis(values: Sequence[float], allow_log: bool = False) -> Axis:
    """Choose the axis of values.

    Args:
        values: at least one, finite.
        allow_log: take a logarithmic axis where all values are positive and far apart.

    Returns:
        An axis that ends at ticks and holds all values; it starts at 0 where that costs little.
    """
    low, high = min(values), max(values)
    if allow_log and low > 0 and high / low > LOG_RATIO:
        return _log_axis(low, high)
    if 0 <= low < 0.4 * high:
        low = 0.0
    if low == high:
        spread = abs(low) * 0.1 or 1.0
        # What cannot be negative is not drawn on an axis that is.
        low, high = (max(0.0, low - spread) if low >= 0 else low - spread), high + spread
    step = _nice_step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [step * number for number in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], ticks)


def iteration_axis(last: int) -> Axis:
    """The axis of iterations 0..last, which ends where the next one would be, for round ticks."""
    high = last + 1
    step = max(1.0, float(round(_nice_step(high / 5))))
    return Axis(0.0, float(high), [step * n for n in range(int(high / step) + 1)])


def _log_axis(low: float, high: float) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if math.log10(high / low) < MIN_DECADES_PLAIN else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    start = max((tick for tick in ticks if tick <= low * 1.0001), default=low)
    end = min((tick for tick in ticks if tick >= high * 0.9999), default=high)
    return Axis(start, end, [tick for tick in ticks if start <= tick <= end], logarithmic=True)


def _nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def exponent_of(axis: Axis) -> int:
    """The power of ten to take out of an axis's numbers, where they would be long; else 0."""
    if axis.logarithmic:
        return 0
    size = max(abs(axis.low), abs(axis.high))
    power = math.floor(math.log10(size)) if size else 0
    return power if power < -2 or power > 4 else 0


def tick_text(value: float, exponent: int = 0) -> str:
    """Write a tick's number in few characters."""
    scaled = value / 10.0**exponent
    return f"{scaled:.6g}".replace("-", "\u2212")


def iteration_text(value: float) -> str:
    """Write a number of iterations on an axis: 500, 20k."""
    if value >= 10000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def superscript(power: int) -> str:
    """Write an exponent: ⁻³."""
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
