"""One training step: forward, backward, clipped gradients, update, and its metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from schnet.engine.agreement import agree_any
from schnet.engine.bad_batches import BadStep, BadSteps, build_bad_steps
from schnet.engine.ema import ModelEma
from schnet.engine.precision import Precision, build_precision

Batch = list[dict[str, Any]]


@dataclass(frozen=True)
class _Part:
    """A batch that went through the model: its losses, detached, and whether they are finite."""

    batch: Batch
    losses: dict[str, torch.Tensor]
    is_finite: bool


class StepTrainer(SimpleTrainer):
    """Detectron2's step in parts, with autocast, clipping of the whole gradient, and its norm.

    A step whose losses or gradient are not finite leaves weights, optimizer and average as they
    were; the schedule goes on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float | None,
        precision: Precision,
        bad_steps: BadSteps,
        accumulate_steps: int = 1,
        ema: ModelEma | None = None,
    ) -> None:
        """Set the model to training.

        Args:
            model: gives a dict of losses for a batch, means over its images; wrapped for
                distributed training or not.
            optimizer: over the trained parameters.
            clip_norm: largest norm of all gradients together; None does not clip.
            precision: type of the forward pass, and the gradients' scale.
            bad_steps: takes the steps that are not finite.
            accumulate_steps: batches of equal size that make up a step; >= 1.
            ema: the average to update after each step, or None.
        """
        super().__init__(model, (), optimizer)
        self._clip_norm = math.inf if clip_norm is None else clip_norm
        self._precision = precision
        self._bad_steps = bad_steps
        self._accumulate_steps = accumulate_steps
        self._ema = ema
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def use_loader(self, data_loader: Iterable[Batch]) -> None:
        """Take batches from here; separate from construction, as a resumed run starts late."""
        self.data_loader = data_loader
        self._batches = iter(data_loader)

    def run_step(self) -> None:
        """Train on the next batch, or on the next `accumulate_steps` ones together.

        Raises:
            InputError: the batch has bad input, or its loss or gradient is not finite once more
                than a run may skip; the weights are those before the step.
        """
        start = time.perf_counter()
        batches = [next(self._batches) for _ in range(self._accumulate_steps)]
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad(set_to_none=True)
        parts, all_finite = self._backward(batches)
        if not all_finite:
            self._skip(parts, [part for part in parts if not part.is_finite])
            return
        self._precision.scaler.unscale_(self.optimizer)
        # All processes have the same gradients by now, and so decide alike.
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._clip_norm))
        if math.isfinite(norm):
            self._update()
        elif self._precision.absorb_overflow():
            self._drop_gradients()
        else:
            self._skip(parts, parts, f"the gradient's norm is {norm}, ")
            return
        self._write_metrics(_mean_losses(parts), data_time)
        if comm.is_main_process():
            self._write_gradient_metrics(norm)

    def state_dict(self) -> dict[str, Any]:
        """The bad steps so far and the gradients' scale, in plain types; not the optimizer's."""
        return {"bad_steps": self._bad_steps.count, "precision": self._precision.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting, and from the scale."""
        self._bad_steps.count = int(state_dict["bad_steps"])
        self._precision.load_state_dict(state_dict["precision"])

    def _backward(self, batches: list[Batch]) -> tuple[list[_Part], bool]:
        """Add up the gradients of the batches' mean loss, unless a loss is not finite.

        Returns:
            The parts; and whether the losses are finite on all processes.
        """
        parts: list[_Part] = []
        all_finite = True
        for number, batch in enumerate(batches, start=1):
            is_last = number == len(batches)
            with self._exchanging(is_last):
                total, part = self._forward(batch, len(batches))
                parts.append(part)
                all_finite = all_finite and part.is_finite
                if is_last:
                    # This backward pass is the one in which the processes wait for each other:
                    # all of them run it, or none.
                    all_finite = not any(agree_any(not all_finite))
                if all_finite:
                    self._precision.scaler.scale(total).backward()
                # Without a backward pass the graph would live on through the next forward pass.
                del total
        return parts, all_finite

    def _forward(self, batch: Batch, num_parts: int) -> tuple[torch.Tensor, _Part]:
        """Give a batch's share of the step's loss, and what is known of the batch."""
        with self._precision.autocast():
            losses = self.model(batch)
        total = torch.stack(list(losses.values())).sum() / num_parts
        detached = {name: value.detach() for name, value in losses.items()}
        return total, _Part(batch, detached, math.isfinite(float(total.detach())))

    def _exchanging(self, exchanges: bool) -> AbstractContextManager[None]:
        """Whether the gradients of the block go to the other processes."""
        if exchanges or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _update(self) -> None:
        self._precision.scaler.step(self.optimizer)
        self._precision.scaler.update()
        if self._ema is not None:
            self._ema.update()

    def _drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        # torch's schedules warn where a first step did not reach the optimizer; here it is meant.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]

    def _skip(self, parts: list[_Part], bad: list[_Part], told: str = "") -> None:
        """Leave the step out, and report its bad parts, all of which another process may have."""
        self._drop_gradients()
        mean = {name: float(value) for name, value in _mean_losses(bad or parts).items()}
        self._bad_steps.record(
            BadStep(
                iteration=int(self.iter),
                learning_rate=float(self.optimizer.param_groups[0]["lr"]),
                losses=mean,
                told=told + ", ".join(f"{name} {value:.4g}" for name, value in mean.items()),
                batch=[entry for part in bad for entry in part.batch],
            )
        )
        if comm.is_main_process():
            get_event_storage().put_scalar("bad_steps", self._bad_steps.count, smoothing_hint=False)

    def _write_gradient_metrics(self, norm: float) -> None:
        storage = get_event_storage()
        if math.isfinite(norm):
            storage.put_scalar("grad_norm", norm)
        if self._precision.scaler.is_enabled():
            storage.put_scalars(
                amp_scale=self._precision.scale,
                amp_overflows=self._precision.overflows,
                smoothing_hint=False,
            )


def build_step_trainer(
    cfg: CfgNode,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: ModelEma | None,
) -> StepTrainer:
    """Build the step from the SOLVER keys.

    Args:
        cfg: SOLVER, OUTPUT_DIR and DATASETS.TRAIN count.
        model: wrapped for distributed training or not, on its device.
        optimizer: over the trained parameters.
        ema: the average to update, or None.
    """
    solver = cfg.SOLVER
    return StepTrainer(
        model,
        optimizer,
        clip_norm=solver.CLIP_GRADIENTS.CLIP_VALUE if solver.CLIP_GRADIENTS.ENABLED else None,
        precision=build_precision(cfg, next(model.parameters()).device),
        bad_steps=build_bad_steps(cfg),
        accumulate_steps=solver.ACCUMULATE_STEPS,
        ema=ema,
    )


def _mean_losses(parts: list[_Part]) -> dict[str, torch.Tensor]:
    """Each loss averaged over the parts, which are of equal size."""
    return {
        name: torch.stack([part.losses[name] for part in parts]).mean() for name in parts[0].losses
    }
