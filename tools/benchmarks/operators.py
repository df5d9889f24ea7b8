"""Where the time of a pass of the whole model goes, by PyTorch's operators.

Measured by torch.profiler, whose own cost is in the times: the shares tell, not the seconds.
"""

from __future__ import annotations

from functools import partial

from benchmarks.comparison import Comparison
from benchmarks.encoders import DTYPES
from benchmarks.models import build_schnet, parse, random_photos
from benchmarks.options import Settings
from benchmarks.results import Figures, markdown_table
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

KINDS = {
    "linear layers": ("_linear_pointwise", "addmm", "mkldnn_linear", "aten::linear"),
    "attention's products": ("bmm", "baddbmm", "aten::matmul"),
    "convolutions": ("conv", "_convolution_pointwise"),
    "softmax": ("softmax",),
    "norms": ("layer_norm", "group_norm", "batch_norm"),
    "copies": ("copy_", "cat", "contiguous", "clone", "index_select"),
    "sums and products of elements": ("aten::add", "aten::mul", "aten::addcmul", "gelu", "relu"),
    "resizing": ("upsample",),
}
"""Kinds of operators by parts of their names; the first that fits counts."""
OTHER = "other"


def measure(settings: Settings) -> Figures:
    """Profile every size of every variant in both types.

    Returns:
        `cells`: one dict a variant, size and type, with `seconds` by kind of operator.
    """
    cells = []
    for variant in settings.variants:
        model = build_schnet(variant)
        for shape in settings.shapes:
            for dtype in DTYPES:
                run = partial(parse, model, random_photos(shape), dtype)
                seconds = _profile(run, settings.rounds, f"{variant} at {shape}, {dtype}")
                cells.append(
                    {"variant": variant, "shape": str(shape), "dtype": dtype, "seconds": seconds}
                )
        del model
    return {"cells": cells}


def render(figures: Figures) -> str:
    """Make the table: a column a kind, the shares of the time in operators."""
    kinds = (*KINDS, OTHER)
    rows = []
    for cell in figures["cells"]:
        total = sum(cell["seconds"].values())
        shares = [f"{100 * cell['seconds'][kind] / total:.1f} %" for kind in kinds]
        rows.append([cell["variant"], cell["shape"], cell["dtype"], *shares])
    return markdown_table(["encoder", "size", "type", *kinds], rows, left=3)


def kind_of(operator: str) -> str:
    """The kind that an operator counts as, by its name."""
    for kind, parts in KINDS.items():
        if any(part in operator for part in parts):
            return kind
    return OTHER


def _profile(run: partial[object], rounds: int, title: str) -> dict[str, float]:
    run()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in tqdm(range(rounds), desc=title, unit="run", leave=False):
            run()
    seconds = dict.fromkeys((*KINDS, OTHER), 0.0)
    for event in profiler.key_averages():
        seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6 / rounds
    return seconds


COMPARISON = Comparison("operators", ("vit_b", "vit_l"), ("512",), measure, render)
add_arguments, run = COMPARISON.add_arguments, COMPARISON.run
