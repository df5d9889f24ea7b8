"""The random numbers of a run: their state in plain types, from all processes and back to each."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

logger = logging.getLogger(__name__)

RngState = dict[str, Any]


def rng_state() -> RngState:
    """This process's generators: `python`, `numpy`, `torch`, and `cuda` where there is a GPU.

    Returns:
        Tensors, numbers, strings, lists and None only, which load with `weights_only`. `cuda` is
        the current device's generator, the one that this process uses.
    """
    version, words, gauss_next = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: RngState = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss_next],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Set this process's generators to what `rng_state` gave; a GPU that is gone is left out."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss_next))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def gather_rng_states() -> list[RngState]:
    """The states of all processes, by rank; every process must call it.

    Returns:
        One state a rank on the main process, an empty list on the others.
    """
    return comm.gather(rng_state())


def restore_rng(states: Sequence[Mapping[str, Any]], seed: int, iteration: int) -> None:
    """Give this process its generators back as they were saved.

    Where another number of processes saved them, each starts afresh from (seed, rank, iteration),
    and the log says so.

    Args:
        states: as `gather_rng_states` gave them on the main process.
        seed: the run's seed; negative counts as 0.
        iteration: the first one that this process runs, >= 0.
    """
    if len(states) == comm.get_world_size():
        set_rng_state(states[comm.get_rank()])
        return
    logger.warning(
        "the checkpoint holds the random numbers' state of %d processes and there are %d: they "
        "start afresh from the seed, the process and the iteration",
        len(states),
        comm.get_world_size(),
    )
    entropy = [max(seed, 0), comm.get_rank(), iteration]
    seed_all_rng(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
