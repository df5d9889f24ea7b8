"""What tests that spawn the processes of a run have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from schnet.engine.launch import TORCHRUN_VARIABLES, ProcessLayout

TWO = ProcessLayout(2, 1, 0, "gloo", "auto")


def prepare_spawning(patch: pytest.MonkeyPatch, data: Path | None = None) -> None:
    """Let spawned processes find the tests' modules, and the data sets; torchrun is not about."""
    for name in (*TORCHRUN_VARIABLES, "LOCAL_WORLD_SIZE"):
        patch.delenv(name, raising=False)
    patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    if data is not None:
        patch.setenv("DETECTRON2_DATASETS", str(data))
