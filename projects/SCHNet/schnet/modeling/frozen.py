"""Freezing: modules that neither train nor change, whatever their parents do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from schnet.errors import InputError
from schnet.fingerprints import BaseSource
from schnet.state_misfit import describe_misfit

RANDOM_BASE_SEED = 0


class FreezableModule(nn.Module):
    """A module that can be frozen for good: no gradients, and eval mode even under `.train()`.

    Attributes:
        is_frozen: whether it is.
        source: the file that its weights came from; None where they are of no file. A checkpoint
            leaves a frozen module with a source out.
        derived: names of its non-persistent buffers that follow from that file and cannot be made
            of the module's own weights.
    """

    def __init__(self) -> None:
        """Start unfrozen, with weights of no file."""
        super().__init__()
        self.is_frozen = False
        self.source: BaseSource | None = None
        self.derived: tuple[str, ...] = ()

    def freeze(self) -> None:
        """Exclude all parameters from training and pin the module and its children to eval."""
        self.is_frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FreezableModule:
        """Set the mode of the module and its children; a frozen one stays in eval."""
        super().train(mode and not self.is_frozen)
        return self


@contextlib.contextmanager
def fixed_initialisation() -> Iterator[None]:
    """Draw a random base's weights from a fixed seed, and leave the caller's generator alone.

    A random base that is frozen is not worth a file of its own: building it again must give the
    same weights, whatever the run's seed and whatever was built before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_BASE_SEED)
        yield


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Number of trained and of frozen parameter elements of a module.

    Returns:
        (trained, frozen), the numbers of scalars in parameters with and without gradient.
    """
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    return trained, frozen


def load_base(
    module: nn.Module,
    state: dict[str, torch.Tensor],
    *,
    key: str,
    weights: str,
    kind: str,
    found: str = "",
) -> None:
    """Give a base its weights; every one, and no other.

    Args:
        module: the base, in place.
        state: its weights by name, of any floating type.
        key: the config key that names them, for the error message.
        weights: where they come from, likewise.
        kind: what the base is, such as `SAM vit_b`, likewise.
        found: what the weights seem to be, in the same words; "" where that is not known.

    Raises:
        InputError: names or shapes differ.
    """
    misfit = describe_misfit(module.state_dict(), state)
    if misfit:
        seems = f"it seems to be {found}; " if found not in ("", kind) else ""
        raise InputError(
            f"config key {key} names {weights}, which does not hold {kind} ({seems}"
            f"{'; '.join(misfit)}): give the file of that variant or correct the variant"
        )
    module.load_state_dict(state)
