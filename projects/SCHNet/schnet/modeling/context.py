"""What surrounds a computation: the type that autocast asks for, and whether it is recorded."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """The type that matrix products of a tensor are computed in here: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def is_traced() -> bool:
    """Whether operations are recorded for later rather than run: an export, a compilation.

    A recorded graph should hold plain operators, which others know.
    """
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def is_exported() -> bool:
    """Whether `torch.export` records the operations: the sizes of its graph may be left open.

    What depends on a size must be computed by operators then, without a decision of Python's.
    """
    return torch.compiler.is_exporting()


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Compute in the operands' own type, whatever autocast asks for.

    An export records no autocast around it, and its files cannot be read where one is switched off
    inside the graph.
    """
    if is_exported():
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)
