"""Telling how a state dict differs from the one that a model wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

SHOWN_NAMES = 3


def describe_misfit(
    wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> list[str]:
    """How a state dict's names and shapes differ from a model's.

    Args:
        wanted: the model's state dict.
        state: the one that was read.

    Returns:
        Up to three parts of a sentence: what it lacks, what it has besides, and what has another
        shape, each with its first names; empty where names and shapes are the same.
    """
    missing = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    reshaped = [
        f"{name} of shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    parts = []
    if missing:
        parts.append(f"it lacks {first_of(missing)}")
    if unknown:
        parts.append(f"it has the unknown {first_of(unknown)}")
    if reshaped:
        parts.append(f"it has {first_of(reshaped)}")
    return parts


def first_of(names: Sequence[str], shown: int = SHOWN_NAMES) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
