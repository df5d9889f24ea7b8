"""Random numbers go on where they were saved, in each process."""

from __future__ import annotations

import io
import logging
import random

import numpy as np
import pytest
import torch
from detectron2.utils import comm

from schnet.engine.rng import gather_rng_states, restore_rng, rng_state, set_rng_state


def _draw() -> list[float]:
    """Numbers of every generator, also such that come in pairs."""
    return [
        *(random.random(), random.gauss(0, 1), float(np.random.rand())),
        *(float(np.random.randn()), float(torch.rand(())), float(torch.randn(()))),
    ]


def test_state_survives_a_file_of_plain_types() -> None:
    _draw()  # an odd number of normal draws: the other of the pair is part of the state
    file = io.BytesIO()
    torch.save(rng_state(), file)
    expected = _draw() + _draw()
    file.seek(0)
    set_rng_state(torch.load(file, weights_only=True))
    assert _draw() + _draw() == expected


def test_each_process_gets_its_own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    states, expected = [], []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        states += gather_rng_states()
        expected.append(_draw())
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    for rank in (1, 0):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        restore_rng(states, seed=0, iteration=5)
        assert _draw() == expected[rank]


def test_another_number_of_processes_starts_afresh_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states = gather_rng_states()
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    found = []
    with caplog.at_level(logging.WARNING, logger="schnet"):
        for rank, seed, iteration in [(0, 3, 7), (1, 3, 7), (0, 4, 7), (0, 3, 8), (0, 3, 7)]:
            monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
            restore_rng(states, seed, iteration)
            found.append(tuple(_draw()))
    assert found[0] == found[4] and len(set(found)) == 4
    assert "of 1 processes and there are 2" in caplog.text
