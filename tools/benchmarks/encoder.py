"""SAM's frozen encoder in inference: segment_anything's in fp32 against ours in fp32 and bf16.

Same weights and images, no adapters, no neck. Besides the times: errors, the memory that a
forward pass takes (a fresh process a side), and how much of the rate of prepacked matrix products,
measured in the same rounds, each side reaches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from benchmarks import processes
from benchmarks.comparison import Comparison
from benchmarks.encoders import (
    DTYPES,
    SMALLEST,
    EncoderPair,
    build_pair,
    encode,
    needed_flops,
    random_images,
    relative_error,
)
from benchmarks.matmul import PackedProducts
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

SIZES = ("512", "512@4", "768", "1024")
REFERENCE = "reference"
SIDES = (REFERENCE, *DTYPES)
# The issue's: how many times as fast as the reference, by size and type, for ViT-B.
TARGETS = {
    "fp32": {"512x512": 3.0, "512x512@4": 3.3, "768x768": 3.0, "1024x1024": 5.5},
    "bf16": {"512x512": 5.0, "512x512@4": 5.0, "768x768": 5.0, "1024x1024": 8.5},
}
TARGET_VARIANT = "vit_b"
LARGEST_ERROR = {"fp32": 1e-5, "bf16": 1e-2}
MEMORY_TARGET = ("vit_b", "1024x1024", "fp32", 0.05)
# Percent of the rate of prepacked products.
RATE_TARGET = {"fp32": 75}
# A check against fp64 takes as long as several rounds: at one size.
CHECKED_IN_FP64 = 512 * 512


def measure(settings: Settings) -> Figures:
    """Measure every size of every variant.

    Returns:
        `cells`: one dict a variant and size, with times, errors, memory and rates.
    """
    cells = []
    for variant in settings.variants:
        memory = _measure_memory(variant, settings)
        pair = build_pair(variant)
        products = {
            f"products {name}": PackedProducts(pair.variant.dim, dtype)
            for name, dtype in DTYPES.items()
        }
        for shape in settings.shapes:
            cell = _measure_cell(pair, shape, settings.rounds, products)
            cells.append({"variant": variant, "memory": memory[str(shape)], **cell})
    return {"cells": cells}


def make_sides(description: Mapping[str, Any]) -> dict[str, Side]:
    """Make one encoder's forward pass at several sizes, named by them.

    Args:
        description: `variant`, `side` (one of `SIDES`) and `shapes`.
    """
    pair = build_pair(description["variant"])
    forward = _forward(pair, description["side"])
    return {
        text: Side(
            run=partial(forward, random_images(Shape.parse(text))),
            warm_up=partial(forward, random_images(SMALLEST)),
        )
        for text in description["shapes"]
    }


def render(figures: Figures) -> str:
    """Make the tables."""
    cells = figures["cells"]
    times = ["encoder", "size", "side", "time", "times as fast", "target", "the machine's limit"]
    times += ["of the product rate", "target"]
    results = ["encoder", "size", "side", "error", "target", "extra memory", "of the reference's"]
    results += ["target"]
    return "\n\n".join(
        [
            markdown_table(times, [row for cell in cells for row in _time_rows(cell)], left=3),
            markdown_table(results, [row for cell in cells for row in _result_rows(cell)], left=3),
            _notes(cells),
        ]
    )


def _forward(pair: EncoderPair, side: str) -> Callable[[torch.Tensor], torch.Tensor]:
    if side == REFERENCE:
        return partial(encode, pair.reference)
    return partial(encode, pair.ours, dtype=side)


def _measure_memory(variant: str, settings: Settings) -> dict[str, dict[str, Any]]:
    """The memory of each side at each size, smallest size first, a process a side."""
    shapes = sorted(settings.shapes, key=lambda shape: shape.pixels * shape.batch)
    memory: dict[str, dict[str, Any]] = {str(shape): {} for shape in shapes}
    for side in SIDES:
        description = {"variant": variant, "side": side, "shapes": list(memory)}
        with processes.SessionProcess(
            __name__, description, threads=settings.threads, environment=ENVIRONMENT
        ) as session:
            for text, by_side in memory.items():
                by_side[side] = session.memory(text)
    return memory


def _measure_cell(
    pair: EncoderPair, shape: Shape, rounds: int, products: Mapping[str, PackedProducts]
) -> Figures:
    images = random_images(shape)
    forwards = {side: _forward(pair, side) for side in SIDES}
    sides: dict[str, Callable[[], object]] = {
        side: partial(forward, images) for side, forward in forwards.items()
    }
    samples = interleave({**sides, **products}, rounds, title=f"encoder at {shape}")
    outputs = {side: forward(images) for side, forward in forwards.items()}
    errors = {side: relative_error(outputs[side], outputs[REFERENCE]) for side in DTYPES}
    exact_errors = None
    if shape.batch == 1 and shape.pixels <= CHECKED_IN_FP64:
        exact = encode(copy.deepcopy(pair.reference).double(), images.double())
        exact_errors = {side: relative_error(outputs[side], exact) for side in SIDES}
    return {
        "shape": str(shape),
        "seconds": {side: samples[side].seconds for side in SIDES},
        "errors": errors,
        "errors_to_fp64": exact_errors,
        "needed_flops": needed_flops(pair.variant, shape),
        "product_rates": {
            name.split()[1]: work.flops / samples[name].median for name, work in products.items()
        },
        "packed": all(work.packed for work in products.values()),
    }


def _time_rows(cell: Figures) -> list[list[str]]:
    samples = {side: as_sample(seconds) for side, seconds in cell["seconds"].items()}
    reference, flops, rates = samples[REFERENCE], cell["needed_flops"], cell["product_rates"]
    has_targets = cell["variant"] == TARGET_VARIANT
    rows = []
    for side, sample in samples.items():
        rate = rates.get(side, rates["fp32"])
        share = flops / sample.median / rate
        row = [cell["variant"], cell["shape"], side, seconds_text(sample)]
        if side == REFERENCE:
            row += ["1", "–", "–", f"{100 * share:.0f} %", "–"]
        else:
            speedup = compare(reference, sample)
            least = TARGETS[side].get(cell["shape"]) if has_targets else None
            least_share = RATE_TARGET.get(side) if has_targets else None
            row += [
                ratio_text(speedup),
                target_text(speedup.value, least=least),
                f"{reference.median * rate / flops:.2f}",
                f"{100 * share:.0f} %",
                target_text(100 * share, least=least_share, unit=" %"),
            ]
        rows.append(row)
    return rows


def _result_rows(cell: Figures) -> list[list[str]]:
    rows = []
    for side in SIDES:
        memory = cell["memory"][side]
        row = [cell["variant"], cell["shape"], side]
        if side == REFERENCE:
            row += ["–", "–", memory_text(memory), "1", "–"]
        else:
            share = memory_share(memory, cell["memory"][REFERENCE])
            has_target = (cell["variant"], cell["shape"], side) == MEMORY_TARGET[:3]
            row += [
                f"{cell['errors'][side]:.1e}",
                target_text(cell["errors"][side], most=LARGEST_ERROR[side]),
                memory_text(memory),
                "not measured" if share is None else f"{share:.3f}",
                target_text(share, most=MEMORY_TARGET[3] if has_target else None),
            ]
        rows.append(row)
    return rows


def _notes(cells: list[Figures]) -> str:
    lines = [
        "Times as fast: the reference's time by the side's. The machine's limit: what code would "
        "reach that ran every needed operation, and nothing else, at the rate of the prepacked "
        "matrix products of the same rounds; shares of that rate count needed operations (matrix "
        "products and attention without padded tokens).",
        "Error: relative L2 to the reference. Extra memory: peak over a process that has run the "
        "smallest image.",
    ]
    seen = set()
    for cell in cells:
        rates = ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in cell["product_rates"].items())
        kind = "prepacked products" if cell["packed"] else "products (none are packed here)"
        line = f"{cell['variant']} at {cell['shape']}: {kind} {rates}"
        if cell["errors_to_fp64"]:
            errors = ", ".join(f"{k} {v:.1e}" for k, v in cell["errors_to_fp64"].items())
            line += f"; errors to fp64: {errors}"
        lines.append(f"{line}.")
        if cell["variant"] not in seen:
            kept = {k: v["kept"] for k, v in cell["memory"].items() if v}
            if kept and any(kept.values()):
                seen.add(cell["variant"])
                told = ", ".join(f"{k} {v / 1e6:.0f} MB" for k, v in kept.items())
                lines.append(f"Kept after the smallest image (libraries, packed weights): {told}.")
    return "\n".join(f"- {line}" for line in lines)


COMPARISON = Comparison("encoder", ("vit_b",), SIZES, measure, render)
add_arguments, run = COMPARISON.add_arguments, COMPARISON.run
