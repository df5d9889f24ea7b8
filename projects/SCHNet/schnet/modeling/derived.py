"""Values that follow from weights, remembered until a weight changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensor

T = TypeVar("T")


class Derived:
    """A memory of what was computed from frozen weights; no part of any module's state.

    A value is made anew when one of its sources is another tensor, or has been written to (loading
    weights, an optimizer's step), or has moved. Copies and pickles start empty.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._values: dict[Hashable, tuple[tuple[Any, ...], Any]] = {}

    def get(self, key: Hashable, sources: Sequence[torch.Tensor], make: Callable[[], T]) -> T:
        """The value of a key, made now if it has to be.

        Args:
            key: tells this object's values apart.
            sources: all tensors that the value depends on.
            make: computes it; runs without gradients.
        """
        state = tuple((_address(t), t._version, t.dtype, t.device, t.shape) for t in sources)
        known = self._values.get(key)
        if known is not None and known[0] == state:
            return known[1]
        # An inference tensor could not be used by a later training step.
        with torch.inference_mode(False), torch.no_grad():
            value = make()
        self._values[key] = (state, value)
        return value

    def __deepcopy__(self, memo: dict[int, Any]) -> Derived:
        """An empty one: the copy's weights are others."""
        return Derived()

    def __reduce__(self) -> tuple[type[Derived], tuple[()]]:
        """Pickle an empty one."""
        return Derived, ()


def _address(tensor: torch.Tensor) -> int:
    # Tensors without values (a plan's) have no memory.
    return id(tensor) if isinstance(tensor, FakeTensor) else tensor.data_ptr()
