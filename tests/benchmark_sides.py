"""Sides for the tests of a benchmark's processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

MEGABYTES = 64


def make_sides(description: Mapping[str, Any]) -> dict[str, Any]:
    """A side that takes MEGABYTES and gives them back, one that prints, and one that fails."""

    from benchmarks.session import Side  # tools/ is on the path of those that call this

    def take() -> None:
        torch.ones(MEGABYTES << 18)

    def fail() -> None:
        raise ValueError("this side fails")

    def see() -> dict[str, float]:
        names = ("MALLOC_ARENA_MAX", "MALLOC_CHECK_", "GLIBC_TUNABLES")
        seen = {name: float(name in os.environ) for name in names}
        return {"threads": torch.get_num_threads(), "told": description["told"], **seen}

    return {
        "takes": Side(take, lambda: None, see),
        "prints": Side(lambda: print("{}"), lambda: None),
        "fails": Side(fail, lambda: None),
    }
