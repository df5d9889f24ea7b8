"""Live memory and FLOPs of a computation, followed operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class OperationTrace(TorchDispatchMode):
    """Follows every storage that is made while it is active, until it is freed.

    Entered inside a `FakeTensorMode` it sees the shapes of a real run without its memory or its
    arithmetic. What a kernel allocates within itself, such as a convolution's workspace, it does
    not see.

    Attributes:
        live_bytes: bytes of the storages that are alive now.
        peak_bytes: the highest value of `live_bytes` so far.
        flops: floating-point operations so far, a multiplication and an addition as two, of
            matrix products, convolutions and fused attention (`torch.utils.flop_counter`);
            elementwise work, norms, softmax and resizing are not counted.
    """

    def __init__(self, existing: Iterable[torch.Tensor] = ()) -> None:
        """Start at zero.

        Args:
            existing: tensors that were there before and do not count, such as a model's weights.
        """
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self.flops = 0
        self._seen: set[int] = set()
        self._existing = [tensor.untyped_storage() for tensor in existing]
        self._seen.update(map(id, self._existing))

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation and account for it."""
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._register(leaf.untyped_storage())
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return result

    def _register(self, storage: torch.UntypedStorage) -> None:
        # A storage's Python object lives as long as the storage, so its id is its name until then.
        name = id(storage)
        if name in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(name)
        self.live_bytes += size
        weakref.finalize(storage, self._release, name, size)

    def _release(self, name: int, size: int) -> None:
        self._seen.discard(name)
        self.live_bytes -= size
