"""The picture of how time and memory grow: a column a quantity, logarithmic on both axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import Sample
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from schnet.data.files import atomic_path

INK, SOFT, RULE, TIME, MEMORY = "#222222", "#625e56", "#e4e4e4", "#1d5b93", "#b3481a"
_COLUMN_INCHES, _HEIGHT_INCHES, _DOTS_PER_INCH = 2.9, 5.0, 130
_MEGABYTE = 1e6


def draw_growth(path: Path, axes: Mapping[str, Mapping[str, Any]], variant: str) -> None:
    """Draw the points with their spread, and the lines whose slopes are named.

    Args:
        path: the PNG, written atomically.
        axes: by the quantity that grows: `points`, each with `x`, `seconds` and `memory`, and
            `slopes` of `time` and `memory`.
        variant: of SAM's encoder, for the title.
    """
    # Without pyplot: no global state, and no window system is looked for.
    size = (_COLUMN_INCHES * len(axes), _HEIGHT_INCHES)
    figure = Figure(size, dpi=_DOTS_PER_INCH, facecolor="white")
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(axes), sharex="col", sharey="row", squeeze=False)
    for column, (name, axis) in enumerate(axes.items()):
        points, slopes = axis["points"], axis["slopes"]
        samples = [Sample(tuple(point["seconds"])) for point in points]
        xs = [float(point["x"]) for point in points]
        _draw_times(panels[0, column], xs, samples, slopes["time"])
        _draw_memory(panels[1, column], xs, [point["memory"] for point in points], slopes["memory"])
        panels[1, column].set_xlabel(name, fontsize=9, color=INK)
    panels[0, 0].set_ylabel("time, s", fontsize=9, color=INK)
    panels[1, 0].set_ylabel("extra memory, MB", fontsize=9, color=INK)
    figure.suptitle(f"The whole model with SAM {variant} in inference", fontsize=11, color=INK)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _draw_times(
    axes: Axes, xs: Sequence[float], samples: Sequence[Sample], slope: float | None
) -> None:
    medians = [sample.median for sample in samples]
    below = [sample.median - sample.spread[0] for sample in samples]
    above = [sample.spread[1] - sample.median for sample in samples]
    axes.errorbar(xs, medians, yerr=[below, above], fmt="o", color=TIME, markersize=4.5, capsize=2)
    _finish(axes, xs, medians, slope, TIME)


def _draw_memory(
    axes: Axes, xs: Sequence[float], memory: Sequence[Mapping[str, int] | None], slope: float | None
) -> None:
    # A small image's memory may be lost in that of the process, and has no logarithm.
    pairs = [
        (x, m["extra"] / _MEGABYTE) for x, m in zip(xs, memory, strict=True) if m and m["extra"]
    ]
    known, extra = [x for x, _ in pairs], [y for _, y in pairs]
    axes.plot(known, extra, "o", color=MEMORY, markersize=4.5)
    _finish(axes, xs, extra, slope, MEMORY)


def _finish(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], slope: float | None, color: str
) -> None:
    """Scales, ticks at the measured numbers, and the line with its slope."""
    axes.set_xscale("log")
    if ys:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        # Within one decade there may be no major tick: 2 and 5 have their numbers too.
        axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    if slope is None:
        text = "not measured"
    else:
        # The least-squares line of this slope goes through the mean of the logarithms.
        level = np.mean(np.log(ys)) - slope * np.mean(np.log(xs))
        axes.plot(xs, np.exp(level + slope * np.log(xs)), color=color, linewidth=1.2, alpha=0.6)
        text = f"slope {slope:.2f}"
    axes.text(0.05, 0.93, text, transform=axes.transAxes, fontsize=9, color=color, va="top")
    axes.set_xticks(xs)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(which="both", labelsize=8, labelcolor=SOFT, length=2)
    axes.grid(color=RULE, linewidth=0.7)
    for spine in axes.spines.values():
        spine.set_color(RULE)
