"""The metrics of each class as a table with bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from schnet.reporting.markup import Markup, tag
from schnet.reporting.run_files import Evaluation

Palette = Sequence[Sequence[int]]

COLUMNS = {"IoU": "IoU", "Precision": "precision", "Recall": "recall", "BF": "BF"}
"""Metrics of a class in `evaluation.json`, and their headings."""
UNDEFINED = "–"


def percent(value: float | None) -> str:
    """Write a percentage as all reports do: two decimals, or a dash."""
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.2f}"


def swatch(color: Sequence[int] | None) -> Markup:
    """A small square of a class's colour; empty where that is not known."""
    style = None if color is None else f"background:rgb({','.join(str(int(c)) for c in color)})"
    return tag("span", class_="swatch", style=style, aria_hidden="true")


def class_table(evaluation: Evaluation, palette: Palette | None) -> Markup:
    """Draw the table, a row a class in label order.

    Args:
        evaluation: the metrics, in percent.
        palette: K colours (r, g, b) in 0..255; None where they are not known.
    """
    shown = {
        metric: heading
        for metric, heading in COLUMNS.items()
        if f"{metric}-{evaluation.classes[0]}" in evaluation.metrics
    }
    heads = [tag("th", "class", scope="col")]
    for metric, heading in shown.items():
        if metric == "IoU":
            heads.append(tag("th", tag("span", "IoU as a bar", class_="unseen"), scope="col"))
        heads.append(tag("th", heading, scope="col", class_="number"))
    heads.append(tag("th", "true pixels", scope="col", class_="number"))
    shares = _shares(evaluation)
    rows = [
        _row(evaluation, name, palette[label] if palette else None, shown, shares[label])
        for label, name in enumerate(evaluation.classes)
    ]
    return tag(
        "table",
        tag("caption", "Per class, in percent", class_="unseen"),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *rows),
        class_="classes",
    )


def _shares(evaluation: Evaluation) -> list[str]:
    """Each class's share of the true pixels, in percent."""
    true = evaluation.pixels.sum(axis=1)
    total = int(true.sum())
    return [percent(100 * int(count) / total if total else None) for count in true]


def _row(
    evaluation: Evaluation,
    name: str,
    color: Sequence[int] | None,
    shown: dict[str, str],
    share: str,
) -> Markup:
    cells = [tag("th", swatch(color), name, scope="row")]
    for metric in shown:
        value = evaluation.metrics.get(f"{metric}-{name}")
        if metric == "IoU":
            cells.append(tag("td", _bar(value), class_="bar"))
        cells.append(tag("td", percent(value), class_="number"))
    return tag("tr", *cells, tag("td", share, class_="number soft"))


def _bar(value: float | None) -> Markup:
    width = 0.0 if value is None else min(max(value, 0.0), 100.0)
    fill = tag("span", style=f"width:{width:.2f}%")
    return tag("span", fill, class_="track", aria_hidden="true")
