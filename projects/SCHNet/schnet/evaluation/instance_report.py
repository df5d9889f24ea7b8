"""What an instance-level evaluation tells people and programs: tables, JSON, a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from schnet.data.files import atomic_path
from schnet.evaluation.average_precision import Floats, mean_defined
from schnet.evaluation.instance_metrics import THRESHOLDS
from schnet.evaluation.instances import InstanceResults

RESULT_FILE = "instances.json"
TABLE_FILE = "instances.txt"
PICTURE_FILE = "instances.png"
SHOWN_THRESHOLD = 0.5
REPORT_FILES = (RESULT_FILE, TABLE_FILE, PICTURE_FILE)
REPORT_KEYS = ("AP_r", "rules", "dataset")
UNDEFINED = "–"
RULES = (
    "IoU > threshold; AP over all points; AP^r: best ground truth of the class, not used up; "
    "AP^p: greedy by score, IoU the mean over classes with background"
)

_SHOWN = THRESHOLDS.index(SHOWN_THRESHOLD)
_BAR_COLOR = "#3b6ea5"
_INK = "#222222"


def report(dataset: str, class_names: Sequence[str], results: InstanceResults) -> str:
    """Word the results as text: means at each threshold, PCP, and each class's AP^r.

    Args:
        dataset: its name, for the first line.
        class_names: K names, in label order.
        results: of a split.

    Returns:
        Lines; numbers in percent.
    """
    lines = [
        f"{dataset}, instance level, {results.images} images, "
        f"{results.true_parts.sum()} true and {results.predicted_parts.sum()} predicted parts, "
        f"{results.true_persons} true and {results.predicted_persons} predicted persons",
        f"rules: {RULES}",
        _means_table(results),
    ]
    if results.pcp is None:
        lines.append(
            "AP^p and PCP are not computed: they need Category_ids and Human_ids as ground truth, "
            "and predicted persons with scores (instance_segmentation)"
        )
    else:
        lines.append(f"PCP at {SHOWN_THRESHOLD}: {_percent(results.pcp[_SHOWN])}")
    if results.ids_without_pixels:
        lines.append(
            f"{results.ids_without_pixels} ids in the lists of the ground truth have no pixel and "
            "count for nothing, as in the official script"
        )
    lines.append(_class_table(class_names, results))
    return "\n\n".join(lines)


def write_results(
    folder: Path, dataset: str, class_names: Sequence[str], results: InstanceResults
) -> list[Path]:
    """Write `instances.json`, the report as `instances.txt`, and a picture of each class's AP^r.

    Args:
        folder: made where it is missing; older results in it are replaced.
        dataset: its name.
        class_names: K names, in label order.
        results: of a split.

    Returns:
        The files.
    """
    content = json.dumps(as_json(dataset, class_names, results), indent=1) + "\n"
    texts = {RESULT_FILE: content, TABLE_FILE: report(dataset, class_names, results) + "\n"}
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    figure = _class_picture(dataset, class_names, results)
    with atomic_path(folder / PICTURE_FILE) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return [folder / name for name in (*texts, PICTURE_FILE)]


def as_json(dataset: str, class_names: Sequence[str], results: InstanceResults) -> dict[str, Any]:
    """Give the results as JSON-ready content: percent, null where undefined or not computed."""
    per_class = {
        name: _by_threshold(values)
        for name, values in zip(class_names[1:], results.part_ap[1:], strict=True)
    }
    pcp = None if results.pcp is None else _by_threshold(results.pcp)
    if pcp is not None:
        del pcp["mean"]  # nobody reports it
    return {
        "dataset": dataset,
        "rules": RULES,
        "images": results.images,
        "AP_r": _by_threshold(results.mean_part_ap),
        "AP_p": None if results.person_ap is None else _by_threshold(results.person_ap),
        "PCP": pcp,
        "AP_r_per_class": per_class,
        "parts": {
            name: {"true": int(true), "predicted": int(predicted)}
            for name, true, predicted in zip(
                class_names[1:], results.true_parts[1:], results.predicted_parts[1:], strict=True
            )
        },
        "persons": {"true": results.true_persons, "predicted": results.predicted_persons},
        "listed_ids_without_pixels": results.ids_without_pixels,
    }


def _means_table(results: InstanceResults) -> str:
    rows = [["AP^r", *_with_mean(results.mean_part_ap)]]
    if results.person_ap is not None:
        rows.append(["AP^p", *_with_mean(results.person_ap)])
    headers = ["IoU >", *(str(threshold) for threshold in THRESHOLDS), "mean"]
    return _table(headers, rows)


def _class_table(class_names: Sequence[str], results: InstanceResults) -> str:
    rows = [
        [
            class_names[value],
            _percent(results.part_ap[value, _SHOWN]),
            _percent(_mean(results.part_ap[value])),
            str(results.true_parts[value]),
            str(results.predicted_parts[value]),
        ]
        for value in range(1, len(class_names))
    ]
    headers = ["class", f"AP^r at {SHOWN_THRESHOLD}", "mean AP^r", "true parts", "predicted parts"]
    return _table(headers, rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    alignment = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, tablefmt="pipe", colalign=alignment, disable_numparse=True)


def _class_picture(dataset: str, class_names: Sequence[str], results: InstanceResults) -> Figure:
    """Draw a bar of AP^r at 0.5 for each class that the ground truth has."""
    shown = [v for v in range(1, len(class_names)) if not math.isnan(results.part_ap[v, _SHOWN])]
    names = [class_names[value] for value in shown]
    values = [100 * float(results.part_ap[value, _SHOWN]) for value in shown]
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bars = axes.barh(names, values, color=_BAR_COLOR, height=0.7)
    axes.bar_label(bars, labels=[f"{value:.1f}" for value in values], padding=3, color=_INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(100, *values) * 1.08)
    axes.set_xlabel(f"AP^r at IoU > {SHOWN_THRESHOLD}, percent")
    axes.set_title(f"{dataset}: mean {_percent(results.mean_part_ap[_SHOWN])}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _by_threshold(values: Floats) -> dict[str, float | None]:
    """Name T ratios and their mean, in percent; JSON has no NaN."""
    named = dict(zip([str(one) for one in THRESHOLDS], values, strict=True))
    named["mean"] = _mean(values)
    return {name: None if math.isnan(one) else 100 * float(one) for name, one in named.items()}


def _with_mean(values: Floats) -> list[str]:
    return [*map(_percent, values), _percent(_mean(values))]


def _mean(values: Floats) -> float:
    return float(mean_defined(values))


def _percent(ratio: float) -> str:
    return UNDEFINED if math.isnan(ratio) else f"{100 * ratio:.2f}"
