"""Which of a model's weights a checkpoint holds, and whether a checkpoint's fit a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import nn

from schnet.errors import InputError
from schnet.fingerprints import BaseSource, fingerprint
from schnet.state_misfit import describe_misfit

logger = logging.getLogger(__name__)

CLASSIFIER = "sem_seg_head.classifier."
"""Prefix of the weights that belong to a label list."""

State = Mapping[str, torch.Tensor]


class Base(Protocol):
    """What this module needs of `schnet.modeling.frozen.FreezableModule`, which it may not know."""

    is_frozen: bool
    source: BaseSource | None
    derived: tuple[str, ...]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The base's weights by name."""
        ...


@dataclass(frozen=True)
class StoredWeights:
    """What a weight file says of a model.

    Attributes:
        told: the beginning of a sentence that names the file, such as `MODEL.WEIGHTS names x.pth`.
        state: tensors by name.
        bases: what was left out, by the prefix of its names, such as `backbone.encoder.`.
        iteration: the last one that was finished, or None where the file does not tell.
        best: the metric and its value which these weights are the best of, where they are.
    """

    told: str
    state: State
    bases: Mapping[str, BaseSource] = field(default_factory=dict)
    iteration: int | None = None
    best: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FittedWeights:
    """Weights that a model can take, and the bases that they replace the file's weights of."""

    state: State
    replaced: Sequence[tuple[str, Base]]
    told: str

    def apply(self, model: nn.Module) -> None:
        """Put the weights into the model that they were fitted to, in place."""
        for name, module in self.replaced:
            if module.is_frozen:
                logger.warning(
                    "%s, which holds other weights of %s than %s: the model takes the former",
                    self.told,
                    name,
                    module.source,
                )
            # They are no file's from here on, so that a checkpoint of this model holds them.
            module.source = None
        unknown = model.load_state_dict(self.state, strict=False).unexpected_keys
        assert not unknown, unknown


def stored_state(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, BaseSource]]:
    """Choose what a checkpoint holds: all but the frozen bases that came from a file.

    Args:
        model: a model; its modules that are a `Base` count as such.

    Returns:
        The state dict, and the sources of what is left out of it by prefix.
    """
    left_out = {
        prefix: module.source
        for prefix, module in _find_bases(model).items()
        if module.is_frozen and module.source is not None
    }
    prefixes = tuple(left_out)
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not (prefixes and name.startswith(prefixes))
    }
    return state, left_out


def fit_weights(model: nn.Module, stored: StoredWeights, kept: str = "") -> FittedWeights:
    """Compare stored weights with a model; nothing is changed yet.

    Args:
        model: the model, just built.
        stored: what a file holds.
        kept: prefix of the names that stay as they are in the model, whatever the file holds; ""
            is none.

    Raises:
        InputError: names or shapes differ, or the model has another base than the one that the
            weights were trained with.
    """
    bases = _find_bases(model)
    for prefix, theirs in stored.bases.items():
        if prefix in bases:
            _require_same_base(prefix, theirs, bases[prefix], stored.told)
    ignored = tuple(stored.bases) + ((kept,) if kept else ())
    state = {n: t for n, t in stored.state.items() if not n.startswith(ignored)}
    wanted = {n: t for n, t in model.state_dict().items() if not n.startswith(ignored)}
    require_fit(wanted, state, stored.told)
    replaced = [
        (prefix.rstrip("."), module)
        for prefix, module in bases.items()
        if prefix not in stored.bases and _differs(prefix, module, wanted, state)
    ]
    for name, module in replaced:
        if module.derived:
            raise InputError(
                f"{stored.told}, which was trained with other weights of {name} than those of this "
                f"model ({module.source or 'random'}), and does not hold what else follows from "
                f"them ({', '.join(module.derived)}): give the weights of {name} that it was "
                "trained with"
            )
    return FittedWeights(
        state, [pair for pair in replaced if pair[1].source is not None], stored.told
    )


def _find_bases(model: nn.Module) -> dict[str, Base]:
    """The modules that can be frozen, by the prefix of their names."""
    return {
        f"{name}.": cast(Base, module)
        for name, module in model.named_modules()
        if all(hasattr(module, attribute) for attribute in ("is_frozen", "source", "derived"))
    }


def _differs(prefix: str, module: Base, wanted: State, state: State) -> bool:
    """Whether stored weights of a base are others than the model's; only where that matters."""
    if module.source is None and not module.derived:
        return False
    return any(
        not torch.equal(tensor.cpu(), state[name].to(tensor.dtype).cpu())
        for name, tensor in wanted.items()
        if name.startswith(prefix)
    )


def _require_same_base(prefix: str, theirs: BaseSource, module: Base, told: str) -> None:
    ours = module.source
    if ours is None:
        raise InputError(
            f"{told}, which was trained with {theirs} as {prefix.rstrip('.')}, where this model "
            f"has weights of no file: set {theirs.key} to {theirs.weights}"
        )
    found = ours.fingerprint
    if not module.is_frozen:
        # It may have been trained since it was loaded.
        found = fingerprint(module.state_dict())
    if found == theirs.fingerprint:
        return
    raise InputError(
        f"{told}, which was trained with {theirs}, and this model has {ours}, whose values differ: "
        f"set {theirs.key} to the file that it was trained with"
    )


def require_fit(wanted: State, state: State, told: str) -> None:
    """Refuse a state dict that has not exactly the names and shapes of another.

    Raises:
        InputError: names the first that are missing, unknown or of another shape.
    """
    misfit = _shape_misfit(wanted, state) or " and ".join(describe_misfit(wanted, state))
    if misfit:
        raise InputError(
            f"{told}, which does not fit this model: {misfit}; give weights that were trained "
            "with this config, or the config that they were trained with"
        )


def _shape_misfit(wanted: State, state: State) -> str:
    """Tell the first tensors of other shapes; as another class count where it is nothing else."""
    shapes = {
        name: (tuple(state[name].shape), tuple(wanted[name].shape))
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    }
    if not shapes:
        return ""
    name, (theirs, ours) = next(iter(shapes.items()))
    told = f"{name} has shape {theirs} there and {ours} here"
    # Rows more or fewer, and no other layer that takes them: these are the model's outputs.
    if len({(a[:1], b[:1]) for a, b in shapes.values()}) == 1 and all(
        a and b and a[0] != b[0] and a[1:] == b[1:] for a, b in shapes.values()
    ):
        return (
            f"it was trained for {theirs[0]} classes and MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
            f"{ours[0]} ({told}); to train on other labels from there, set "
            "MODEL.WEIGHTS_IGNORE_CLASSIFIER True"
        )
    return told
