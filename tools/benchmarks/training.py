"""One training step of SAM's encoder with adapters: forward and the adapters' gradients.

The reference is plain autograd in fp32: segment_anything's frozen layers with FTM after each, by
its formula. Ours computes in fp32 or bf16, and with activation checkpointing in less memory. Full
fine-tuning (segment_anything's layers without adapters, all of them trained) stands beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from benchmarks import processes
from benchmarks.comparison import Comparison, measure_cells
from benchmarks.encoders import (
    SMALLEST,
    ReferenceEncoder,
    autocast,
    build_adapters,
    build_ours,
    build_reference,
    random_images,
    relative_error,
)
from benchmarks.memory import ENVIRONMENT
from benchmarks.options import Settings, Shape
from benchmarks.results import (
    Figures,
    as_sample,
    markdown_table,
    memory_share,
    memory_text,
    ratio_text,
    seconds_text,
    target_text,
)
from benchmarks.runner import compare, interleave
from benchmarks.session import Side
from torch import nn

from schnet.modeling.ftm import FTM
from schnet.modeling.sam_encoder import PATCH_SIZE, SAM_VARIANTS, SamVariant

REFERENCE, FULL = "plain autograd, fp32", "full fine-tuning, fp32"


@dataclass(frozen=True)
class Mode:
    """A way of ours to train.

    Attributes:
        dtype: a key of `benchmarks.encoders.DTYPES`.
        recomputed: what activation checkpointing recomputes; None is without.
        time: target, relative to the reference.
        memory: target, likewise.
    """

    dtype: str
    recomputed: str | None
    time: float
    memory: float


# The targets of less memory hold for both ways of recomputing.
MODES = {
    "fp32": Mode("fp32", None, 0.45, 0.66),
    "fp32, MLPs recomputed": Mode("fp32", "mlp", 0.76, 0.28),
    "fp32, layers recomputed": Mode("fp32", "layer", 0.76, 0.28),
    "bf16": Mode("bf16", None, 0.27, 0.55),
    "bf16, MLPs recomputed": Mode("bf16", "mlp", 0.35, 0.30),
    "bf16, layers recomputed": Mode("bf16", "layer", 0.35, 0.30),
}
SIDES = (REFERENCE, *MODES, FULL)
TARGET = ("vit_b", "512x512@2")
LARGEST_ERROR = {"fp32": 1e-5, "bf16": 2e-2}

Step = Callable[[torch.Tensor, torch.Tensor], None]


class PlainAdapted(nn.Module):
    """segment_anything's frozen encoder with FTM after each layer, as Figure 4 writes it."""

    def __init__(self, encoder: ReferenceEncoder, ftm: FTM) -> None:
        """Take the parts; the adapters train."""
        super().__init__()
        self.base = encoder
        self.ftm = ftm

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) to tokens (B, H/16, W/16, C)."""
        x = self.base.embed(images)
        for layer, block in enumerate(self.base.encoder.blocks):
            x = plain_ftm(self.ftm, layer, block(x))
        return x


def plain_ftm(ftm: FTM, layer: int, features: torch.Tensor) -> torch.Tensor:
    """FTM's formula, term by term: tokens (B, h, w, C) in and out."""
    tokens = ftm.tokens[layer]
    attended = (features @ tokens.t() * tokens.shape[1] ** -0.5).softmax(dim=-1) @ tokens
    first, last = cast(nn.Linear, ftm.mlp[0]), cast(nn.Linear, ftm.mlp[2])
    hidden = F.gelu(F.linear(features + attended, first.weight, first.bias))
    return features + ftm.rho[layer] * F.linear(hidden, last.weight, last.bias)


def measure(settings: Settings) -> Figures:
    """Measure every size of every variant.

    Returns:
        `cells`: one dict a variant and size, with times, memory and gradient errors by side.
    """
    return measure_cells(_measure_cell, settings)


def make_sides(description: Mapping[str, Any]) -> dict[str, Side]:
    """Make one side's training step.

    Args:
        description: `variant`, `shape` and `side`, one of `SIDES`.
    """
    side, variant = description["side"], SAM_VARIANTS[description["variant"]]
    step, _ = build_step(build_reference(variant), variant, side)
    batches = (_batch(shape, variant) for shape in (Shape.parse(description["shape"]), SMALLEST))
    run, warm_up = (partial(step, *batch) for batch in batches)
    return {side: Side(run=run, warm_up=warm_up)}


def build_step(
    reference: ReferenceEncoder, variant: SamVariant, side: str
) -> tuple[Step, FTM | None]:
    """Build one side.

    Args:
        reference: segment_anything's encoder, frozen; it stays as it is.
        variant: its size.
        side: one of `SIDES`.

    Returns:
        Its step, which leaves fresh gradients behind, and the adapters that they belong to.
    """
    if side == FULL:
        trained = copy.deepcopy(reference).requires_grad_(True)
        return partial(_step, trained.train(), "fp32"), None
    ftm, mode = build_adapters(variant), MODES.get(side)
    if mode is None:
        return partial(_step, PlainAdapted(reference, ftm).train(), "fp32"), ftm
    ours = build_ours(reference, variant, ftm=ftm, recomputed=mode.recomputed)
    return partial(_step, ours.train(), mode.dtype), ftm


def render(figures: Figures) -> str:
    """Make the table."""
    headers = [
        *("encoder", "size", "step", "time", "relative", "target", "extra memory", "relative"),
        *("target", "error of the gradients", "target"),
    ]
    rows = [row for cell in figures["cells"] for row in _rows(cell)]
    notes = (
        "A step is a forward and a backward pass; relative to plain autograd. Extra memory: peak "
        "of a step over a process that has trained on the smallest image. Error: relative L2 of "
        "the adapters' gradients, the parameter with the largest."
    )
    return f"{markdown_table(headers, rows, left=3)}\n\n{notes}"


def _batch(shape: Shape, variant: SamVariant) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and a gradient of the last layer's tokens that stands for a head's."""
    grid = (shape.height // PATCH_SIZE, shape.width // PATCH_SIZE)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(shape.batch, *grid, variant.dim, generator=generator)
    return random_images(shape), gradient


def _step(model: nn.Module, dtype: str, images: torch.Tensor, gradient: torch.Tensor) -> None:
    model.zero_grad(set_to_none=True)
    with autocast(dtype):
        output: Any = model(images)
    tokens = output if isinstance(output, torch.Tensor) else output["stage4"].permute(0, 2, 3, 1)
    tokens.float().backward(gradient)


def _measure_cell(variant: str, shape: Shape, settings: Settings) -> Figures:
    memory = {}
    for side in SIDES:
        description = {"variant": variant, "shape": str(shape), "side": side}
        with processes.SessionProcess(
            __name__, description, threads=settings.threads, environment=ENVIRONMENT
        ) as session:
            memory[side] = session.memory(side)
    size = SAM_VARIANTS[variant]
    reference, batch = build_reference(size), _batch(shape, size)
    built = {side: build_step(reference, size, side) for side in SIDES}
    sides = {side: partial(step, *batch) for side, (step, _) in built.items()}
    samples = interleave(sides, settings.rounds, title=f"training at {shape}")
    truth = _gradients(built[REFERENCE][1])
    return {
        "variant": variant,
        "shape": str(shape),
        "sides": {
            side: {
                "seconds": samples[side].seconds,
                "memory": memory[side],
                "errors": {
                    name: relative_error(gradient, truth[name])
                    for name, gradient in _gradients(built[side][1]).items()
                },
            }
            for side in SIDES
        },
    }


def _gradients(ftm: FTM | None) -> dict[str, torch.Tensor]:
    if ftm is None:
        return {}
    gradients = {name: parameter.grad for name, parameter in ftm.named_parameters()}
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert not missing, f"no gradient reached {missing}"
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}


def _rows(cell: Figures) -> list[list[str]]:
    sides = cell["sides"]
    reference = as_sample(sides[REFERENCE]["seconds"])
    has_targets = (cell["variant"], cell["shape"]) == TARGET
    rows = []
    for side, figures in sides.items():
        mode = MODES.get(side)
        targets = mode if has_targets else None
        sample, memory = as_sample(figures["seconds"]), figures["memory"]
        row = [cell["variant"], cell["shape"], side, seconds_text(sample)]
        if side == REFERENCE:
            rows.append([*row, "1", "–", memory_text(memory), "1", "–", "–", "–"])
            continue
        time = compare(sample, reference)
        share = memory_share(memory, sides[REFERENCE]["memory"])
        error = max(figures["errors"].values(), default=None)
        row += [
            ratio_text(time),
            target_text(time.value, most=targets.time if targets else None),
            memory_text(memory),
            "not measured" if share is None else f"{share:.2f}",
            target_text(share, most=targets.memory if targets else None),
            "–" if error is None else f"{error:.1e}",
            target_text(error, most=LARGEST_ERROR[mode.dtype] if mode else None),
        ]
        rows.append(row)
    return rows


COMPARISON = Comparison("training", ("vit_b",), ("512@2",), measure, render)
add_arguments, run = COMPARISON.add_arguments, COMPARISON.run
