"""Switches of the process: what they give to segment_anything's encoder, and what to ours.

Most are read when a process starts, so every set of switches has a process of its own; all are
alive at once and take turns. The fair baseline is the reference under the same switches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from benchmarks import processes
from benchmarks.comparison import Comparison, measure_cells
from benchmarks.encoders import SMALLEST, build_pair, encode, random_images, relative_error
from benchmarks.options import Settings, Shape
from benchmarks.results import (
    Figures,
    as_sample,
    markdown_table,
    ratio_text,
    seconds_text,
    target_text,
)
from benchmarks.runner import Sample, compare, take_turns
from benchmarks.session import Side

REFERENCE = "reference"
SIDES = (REFERENCE, "fp32", "bf16")
NONE = "none"
# Without any switch, ViT-B at 512x512 in fp32 against the reference without any.
TARGET = ("vit_b", "512x512", 2.4)
# Bytes: more than any tensor here.
_NEVER = 1 << 33


@dataclass(frozen=True)
class Switches:
    """A set of switches.

    Attributes:
        environment: read by the C library when the process starts.
        precision: of `torch.backends.mkldnn.matmul.fp32_precision`; None leaves it.
    """

    environment: Mapping[str, str]
    precision: str | None = None


_KEPT = {"MALLOC_MMAP_THRESHOLD_": str(_NEVER), "MALLOC_TRIM_THRESHOLD_": str(_NEVER)}
_HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SETS = {
    NONE: Switches({}),
    "freed memory is kept": Switches(_KEPT),
    "huge pages": Switches(_HUGE),
    "matmul precision bf16": Switches({}, "bf16"),
    "all three": Switches({**_KEPT, **_HUGE}, "bf16"),
}


def measure(settings: Settings) -> Figures:
    """Measure all sets of switches for each size of each variant.

    Returns:
        `cells`: one dict a variant and size, with times, page faults and errors by set and side.
    """
    return measure_cells(_measure_cell, settings)


def make_sides(description: Mapping[str, Any]) -> dict[str, Side]:
    """Make the encoders' forward passes under a precision of matrix products.

    Args:
        description: `variant`, `shape` and `precision`. What is to be seen at the start of a
            process is not this function's to set.
    """
    pair = build_pair(description["variant"])
    images = random_images(Shape.parse(description["shape"]))
    small = random_images(SMALLEST)
    precision = description["precision"]
    truth = encode(pair.reference, images)

    def forward(side: str, x: torch.Tensor) -> torch.Tensor:
        with matmul_precision(precision):
            if side == REFERENCE:
                return encode(pair.reference, x)
            return encode(pair.ours, x, side)

    def check(side: str) -> dict[str, float]:
        return {"error": relative_error(forward(side, images), truth)}

    return {
        side: Side(
            partial(forward, side, images), partial(forward, side, small), partial(check, side)
        )
        for side in SIDES
    }


@contextlib.contextmanager
def matmul_precision(precision: str | None) -> Iterator[None]:
    """Set oneDNN's precision of fp32 matrix products for a while; None leaves it.

    Other than `ieee`, it is a permission: a processor without units for it computes in fp32.
    """
    mkldnn: Any = torch.backends.mkldnn
    matmul = mkldnn.matmul
    before = matmul.fp32_precision
    if precision is not None:
        matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before


def render(figures: Figures) -> str:
    """Make the tables."""
    headers = [
        *("encoder", "size", "switches", "side", "time", "times the reference without switches"),
        *("target", "times the reference with them", "pages touched anew", "error"),
    ]
    rows = [row for cell in figures["cells"] for row in _rows(cell)]
    lines = [f"- {name}: `{_written(switches)}`" for name, switches in SETS.items() if name != NONE]
    notes = "Times: the reference's time by the side's. Error: relative L2 to the reference."
    return "\n\n".join([markdown_table(headers, rows, left=4), notes, "\n".join(lines)])


def _measure_cell(variant: str, shape: Shape, settings: Settings) -> Figures:
    with contextlib.ExitStack() as stack:
        sessions = {
            name: stack.enter_context(
                processes.SessionProcess(
                    __name__,
                    {
                        "variant": variant,
                        "shape": str(shape),
                        "precision": switches.precision,
                    },
                    threads=settings.threads,
                    environment=switches.environment,
                )
            )
            for name, switches in SETS.items()
        }
        # One after the other: while they build their models, nothing may be timed.
        errors = {n: {s: session.check(s) for s in SIDES} for n, session in sessions.items()}
        faults: dict[str, dict[str, int]] = {name: {} for name in sessions}

        def timed(key: str) -> float:
            name, side = key.split("/")
            taken = sessions[name].time(side)
            faults[name][side] = int(taken["faults"])
            return taken["seconds"]

        keys = [f"{name}/{side}" for name in sessions for side in SIDES]
        samples = take_turns(timed, keys, settings.rounds, title=f"switches at {shape}")
    return {
        "variant": variant,
        "shape": str(shape),
        "sets": {
            name: {
                side: {
                    "seconds": samples[f"{name}/{side}"].seconds,
                    "faults": faults[name][side],
                    **errors[name][side],
                }
                for side in SIDES
            }
            for name in SETS
        },
    }


def _rows(cell: Figures) -> list[list[str]]:
    baseline = as_sample(cell["sets"][NONE][REFERENCE]["seconds"])
    rows = []
    for name, sides in cell["sets"].items():
        fair = as_sample(sides[REFERENCE]["seconds"])
        for side, figures in sides.items():
            sample = as_sample(figures["seconds"])
            gain = compare(baseline, sample)
            is_target = (cell["variant"], cell["shape"]) == TARGET[:2]
            least = TARGET[2] if is_target and (name, side) == (NONE, "fp32") else None
            rows.append(
                [
                    *(cell["variant"], cell["shape"], name, side, seconds_text(sample)),
                    ratio_text(gain) if sample != baseline else "1",
                    target_text(gain.value, least=least),
                    _ratio_or_one(fair, sample, side),
                    f"{figures['faults']:,}",
                    f"{figures['error']:.1e}",
                ]
            )
    return rows


def _ratio_or_one(fair: Sample, sample: Sample, side: str) -> str:
    return "1" if side == REFERENCE else ratio_text(compare(fair, sample))


def _written(switches: Switches) -> str:
    parts = [f"{name}={value}" for name, value in switches.environment.items()]
    if switches.precision is not None:
        parts.append(f'torch.backends.mkldnn.matmul.fp32_precision = "{switches.precision}"')
    return " ".join(parts)


COMPARISON = Comparison("switches", ("vit_b",), ("512",), measure, render)
add_arguments, run = COMPARISON.add_arguments, COMPARISON.run
