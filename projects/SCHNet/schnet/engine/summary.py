"""Which parameters of a model train, as a table for the log."""

from __future__ import annotations

from collections.abc import Iterator

from tabulate import tabulate
from torch import nn

from schnet.modeling.frozen import count_parameters


def parameter_table(model: nn.Module, depth: int = 2) -> str:
    """Count trained and frozen parameters, per module.

    Args:
        model: any module.
        depth: levels of children that get a row; deeper ones are counted in their parent's.

    Returns:
        A text table with a row per module that has parameters, and the total.
    """
    rows = [
        (name, type(module).__name__, *count_parameters(module))
        for name, module in _modules(model, "", depth)
    ]
    rows = [row for row in rows if row[2] or row[3]]
    rows.append(("total", type(model).__name__, *count_parameters(model)))
    return str(
        tabulate(
            [(name, kind, f"{trained:,}", f"{frozen:,}") for name, kind, trained, frozen in rows],
            headers=("module", "type", "trained", "frozen"),
            colalign=("left", "left", "right", "right"),
        )
    )


def _modules(module: nn.Module, prefix: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    if depth == 0:
        return
    for name, child in module.named_children():
        yield f"{prefix}{name}", child
        yield from _modules(child, f"{prefix}{name}.", depth - 1)
