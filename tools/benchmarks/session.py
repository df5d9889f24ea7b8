"""Sides of a comparison, and running one of them in this process."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.memory import measure_memory, page_faults


@dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Attributes:
        run: the computation that is measured.
        warm_up: the same, as small as it can be.
        check: figures about the result, such as its error; None where there are none.
    """

    run: Callable[[], object]
    warm_up: Callable[[], object]
    check: Callable[[], dict[str, float]] | None = None


class Session:
    """Sides that a module makes from a description, which JSON can hold."""

    def __init__(self, module: str, description: Mapping[str, Any]) -> None:
        """Make the sides.

        Args:
            module: its `make_sides(description)` gives the sides by name.
            description: what that takes.
        """
        self._sides: Mapping[str, Side] = importlib.import_module(module).make_sides(description)

    def time(self, side: str) -> dict[str, float]:
        """Run a side: `seconds`, and `faults`, the pages that it touched for the first time."""
        faults, start = page_faults(), time.perf_counter()
        self._sides[side].run()
        return {"seconds": time.perf_counter() - start, "faults": page_faults() - faults}

    def memory(self, side: str) -> dict[str, int] | None:
        """Measure a side's memory: `extra` and `kept`, as `Memory`; None where that fails."""
        memory = measure_memory(self._sides[side].run, self._sides[side].warm_up)
        return None if memory is None else asdict(memory)

    def check(self, side: str) -> dict[str, float]:
        """Give the figures about a side's result."""
        check = self._sides[side].check
        return {} if check is None else check()
