"""Several runs of one config that differ in their seed: mean and spread of their metrics."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from schnet.data.files import atomic_path
from schnet.reporting.class_table import percent
from schnet.reporting.run_files import Evaluation

MEANS = ("mIoU", "pACC", "mACC", "mBF")
TABLE_FILE, JSON_FILE, PICTURE_FILE = "seeds.txt", "seeds.json", "seeds.png"
FORMAT = "schnet-seeds/1"
INK, SOFT, RULE, DOT = "#222222", "#6b675f", "#dcd8ce", "#1d5b93"
ROW_INCHES = 0.27


@dataclass(frozen=True)
class Spread:
    """One metric over the seeds, in percent; seeds without a value do not count.

    Attributes:
        values: by seed; None where the metric is undefined.
        mean: None where no seed has a value.
        deviation: standard deviation of the sample (n - 1); None below two values.
        minimum: None where no seed has a value.
        maximum: likewise.
    """

    values: Mapping[int, float | None]
    mean: float | None
    deviation: float | None
    minimum: float | None
    maximum: float | None


def spread_of(values: Mapping[int, float | None]) -> Spread:
    """Summarise one metric's values by seed; None and NaN are undefined."""
    plain = {s: None if v is None or math.isnan(v) else float(v) for s, v in values.items()}
    known = [value for value in plain.values() if value is not None]
    if not known:
        return Spread(plain, None, None, None, None)
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Spread(plain, statistics.fmean(known), deviation, min(known), max(known))


def summarise(evaluations: Mapping[int, Evaluation]) -> dict[str, Spread]:
    """Summarise the metrics of the seeds' evaluations of one data set.

    Args:
        evaluations: by seed, at least one, of one label list.

    Returns:
        `mIoU`, `pACC`, `mACC`, `mBF` as far as they were computed, then `IoU-<class>`.
    """
    first = next(iter(evaluations.values()))
    names = [name for name in MEANS if name in first.metrics]
    names += [f"IoU-{name}" for name in first.classes]
    return {
        name: spread_of({seed: e.metrics.get(name) for seed, e in evaluations.items()})
        for name in names
    }


def write_summary(folder: Path, evaluations: Mapping[str, Mapping[int, Evaluation]]) -> str:
    """Write `seeds.txt`, `seeds.json` and `seeds.png`, each atomically.

    Args:
        folder: of the series.
        evaluations: by data set, then by seed.

    Returns:
        The text of the table.
    """
    summaries = {dataset: summarise(by_seed) for dataset, by_seed in evaluations.items()}
    text = "\n\n".join(
        _table(dataset, summaries[dataset], by_seed) for dataset, by_seed in evaluations.items()
    )
    content = {
        "format": FORMAT,
        "unit": "percent",
        "deviation": "of the sample (n - 1)",
        "datasets": {
            dataset: {
                "protocol": next(iter(evaluations[dataset].values())).protocol,
                "metrics": {name: asdict(spread) for name, spread in summary.items()},
            }
            for dataset, summary in summaries.items()
        },
    }
    with atomic_path(folder / TABLE_FILE) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomic_path(folder / JSON_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _draw(folder / PICTURE_FILE, summaries)
    return text


def _table(
    dataset: str, summary: Mapping[str, Spread], evaluations: Mapping[int, Evaluation]
) -> str:
    protocol = next(iter(evaluations.values())).protocol
    columns = ("mean", "std", "min", "max")
    rows = [
        [
            name,
            *(percent(v) for v in (s.mean, s.deviation, s.minimum, s.maximum)),
            *(percent(value) for value in s.values.values()),
        ]
        for name, s in summary.items()
    ]
    heads = ["metric", *columns, *(f"seed {seed}" for seed in evaluations)]
    alignment = ["left", *["right"] * (len(heads) - 1)]
    table = tabulate(rows, heads, tablefmt="pipe", colalign=alignment, disable_numparse=True)
    count = len(evaluations)
    heading = f"{dataset}, {count} seed{'s' if count > 1 else ''}, protocol: {protocol}"
    note = "In percent; std is the standard deviation of the sample (n - 1)."
    return f"{heading}\n{table}\n{note}"


def _draw(path: Path, summaries: Mapping[str, Mapping[str, Spread]]) -> None:
    """Draw each seed's value as a dot and the mean as a bar, a panel a data set."""
    rows = max(len(summary) for summary in summaries.values())
    figure = Figure((6.4 * len(summaries), 1.3 + ROW_INCHES * rows), dpi=130, facecolor="white")
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    for number, (dataset, summary) in enumerate(summaries.items()):
        axes = figure.add_subplot(1, len(summaries), number + 1)
        _draw_panel(axes, dataset, summary)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_panel(axes: Axes, dataset: str, summary: Mapping[str, Spread]) -> None:
    names = list(summary)
    for row, spread in enumerate(summary.values()):
        values = [value for value in spread.values.values() if value is not None]
        axes.plot([0, 100], [row, row], color=RULE, linewidth=0.7, zorder=0)
        axes.plot(values, np.full(len(values), row), "o", color=DOT, alpha=0.65, markersize=5)
        if spread.mean is not None:
            axes.plot([spread.mean] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=1.6)
    ticks = [name.removeprefix("IoU-") for name in names]
    axes.set_yticks(range(len(names)), labels=ticks, fontsize=8, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-1, 101)
    means = sum(name in MEANS for name in names)
    axes.axhline(means - 0.5, color=SOFT, linewidth=0.8)
    count = len(next(iter(summary.values())).values)
    title = f"{dataset}: {count} seed{'s' if count > 1 else ''}, dots; mean, bar"
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel("percent; IoU of the classes", fontsize=9, color=INK)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
