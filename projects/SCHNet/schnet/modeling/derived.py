"""Values that follow from weights, remembered until a weight changes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

T = TypeVar("T")


class Derived:
    """A memory of what was computed from weights; no part of any module's state.

    A value is made anew when one of its sources is another tensor, has been written to (loading
    weights, an optimizer's step), or has moved. A write through `.data` leaves no trace that could
    be seen. Copies and pickles start empty.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[Hashable, _Known] = {}

    def get(self, key: Hashable, sources: Sequence[torch.Tensor], make: Callable[[], T]) -> T:
        """The value of a key, made now if it has to be.

        Args:
            key: tells this object's values apart.
            sources: all tensors that the value depends on.
            make: computes it; runs without gradients.
        """
        # A trace's tensors have no values, or are of its own kind: they must not outlive it.
        if is_in_torch_dispatch_mode() or torch.compiler.is_compiling():
            return _without_graph(make)
        if not all(map(_is_tracked, sources)):
            return _without_graph(make)
        known = self._known.get(key)
        if known is None or not known.is_of(sources):
            refs = tuple(map(weakref.ref, sources))
            known = _Known(refs, _stamps(sources), _without_graph(make))
            self._known[key] = known
        return known.value

    def clear(self) -> None:
        """Forget everything, and let its memory go."""
        self._known.clear()

    def __reduce__(self) -> tuple[type[Derived], tuple[()]]:
        """Copy and pickle as an empty one: the copy's weights are others."""
        return Derived, ()


@dataclass(frozen=True)
class _Known:
    refs: tuple[weakref.ref[torch.Tensor], ...]
    stamps: tuple[Any, ...]
    value: Any

    def is_of(self, sources: Sequence[torch.Tensor]) -> bool:
        # The same address alone may be that of a new tensor in an old one's place.
        return (
            len(sources) == len(self.refs)
            and all(ref() is source for ref, source in zip(self.refs, sources, strict=True))
            and self.stamps == _stamps(sources)
        )


def _stamps(sources: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    return tuple((t._version, t.data_ptr(), t.dtype, t.device) for t in sources)


def _is_tracked(tensor: torch.Tensor) -> bool:
    # Tensors without values (a trace's) have no address; those made in inference mode no version.
    return type(tensor) in (torch.Tensor, nn.Parameter) and not tensor.is_inference()


def _without_graph(make: Callable[[], T]) -> T:
    # What inference mode makes could not be used by a later training step.
    with torch.inference_mode(False), torch.no_grad():
        return make()
