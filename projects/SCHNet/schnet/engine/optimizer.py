"""AdamW over the trained parameters, grouped by what they are, and its schedule.

Two conventions let a module speak for its own parameters:

- a method `no_weight_decay() -> set[str]` names parameters, relative to the module, that weight
  decay must not shrink although they are matrices (tokens, position tables);
- an attribute `lr_factor: float` multiplies the learning rate of all parameters below, down to
  submodules that declare their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

logger = logging.getLogger(__name__)

NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    LayerNorm2d,
)
"""Modules whose scale and shift are exempt from weight decay."""


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Make AdamW from the SOLVER keys, over the parameters that require gradients."""
    solver = cfg.SOLVER
    groups = parameter_groups(model, solver.BASE_LR, solver.WEIGHT_DECAY)
    for group in groups:
        logger.info(
            "optimizer group: %d tensors, %d parameters, learning rate %g, weight decay %g",
            len(group["params"]),
            sum(parameter.numel() for parameter in group["params"]),
            group["lr"],
            group["weight_decay"],
        )
    return torch.optim.AdamW(groups, lr=solver.BASE_LR, betas=tuple(solver.BETAS), fused=True)


def parameter_groups(model: nn.Module, base_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Sort the trained parameters into groups of one learning rate and one weight decay.

    Norms, biases and all else of at most one dimension, and what `no_weight_decay` names, are not
    decayed. A parameter that several modules share is taken once.

    Args:
        model: the model; parameters without gradients are left out.
        base_lr: learning rate where the `lr_factor` is 1.
        weight_decay: of the decayed parameters.

    Returns:
        Parameter groups for a torch optimizer: `params`, `lr`, `weight_decay`.
    """
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    exempt = _exempt_parameters(model)
    for module, factor in _modules_with_factor(model, 1.0):
        for parameter in module.parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            decayed = not (parameter.ndim <= 1 or isinstance(module, NORMS) or parameter in exempt)
            members.setdefault((factor, decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": base_lr * factor,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (factor, decayed), parameters in members.items()
    ]


def _modules_with_factor(module: nn.Module, inherited: float) -> Iterator[tuple[nn.Module, float]]:
    factor = float(getattr(module, "lr_factor", inherited))
    yield module, factor
    for child in module.children():
        yield from _modules_with_factor(child, factor)


def _exempt_parameters(model: nn.Module) -> set[nn.Parameter]:
    """All parameters that some module's `no_weight_decay` names."""
    exempt = set()
    for module in model.modules():
        exempt_names = getattr(module, "no_weight_decay", None)
        if not callable(exempt_names):
            continue
        own = dict(module.named_parameters(remove_duplicate=False))
        for name in exempt_names():
            if name not in own:
                raise ValueError(
                    f"{type(module).__name__}.no_weight_decay() names {name!r}, which is none of "
                    "its parameters"
                )
            exempt.add(own[name])
    return exempt


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LambdaLR:
    """Make the schedule from the SOLVER keys; it is stepped after every iteration."""
    solver = cfg.SOLVER
    return LambdaLR(
        optimizer,
        warmup_poly(solver.MAX_ITER, solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.POLY_POWER),
    )


def warmup_poly(
    max_iter: int, warmup_iters: int, warmup_factor: float, power: float
) -> Callable[[int], float]:
    """Linear warm-up, then polynomial decay to zero.

    Args:
        max_iter: iterations of the whole run.
        warmup_iters: iterations in which the factor rises from `warmup_factor` to 1.
        warmup_factor: factor of the first iteration.
        power: the decay is (1 - t)^power, t going from 0 after the warm-up to 1 at `max_iter`.

    Returns:
        A function from the iteration (from 0) to the factor on the learning rate, in [0, 1].
    """

    def factor(iteration: int) -> float:
        if iteration < warmup_iters:
            risen = iteration / warmup_iters
            return warmup_factor * (1 - risen) + risen
        decay_iters = max(max_iter - warmup_iters, 1)
        left = 1 - (iteration - warmup_iters) / decay_iters
        return float(max(left, 0.0) ** power)

    return factor
