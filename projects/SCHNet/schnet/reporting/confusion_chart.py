"""The confusion matrix as a heat map, and its largest confusions in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schnet.evaluation.confusion import ratio
from schnet.reporting.markup import Markup, join, number, tag
from schnet.reporting.run_files import Evaluation

CELL = 26
LABEL = 112
"""Room for class names, in the units of the drawing."""
SMALLEST_DRAWN = 0.0005
"""A smaller share would not be seen."""
SMALLEST_WRITTEN = 0.005
STRONG = 0.5
MAX_NUMBERED = 30
MAX_NAME = 16


@dataclass(frozen=True)
class Confusion:
    """Pixels of one class that were predicted as another.

    Attributes:
        true: the class's name.
        predicted: the other's.
        share: of the true class's pixels, in [0, 1].
        pixels: how many.
    """

    true: str
    predicted: str
    share: float
    pixels: int


def row_shares(pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Divide each row (K, K) by its sum; NaN in the rows of classes that are not in the truth."""
    counts = pixels.astype(np.float64)
    return ratio(counts, np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape))


def largest_confusions(evaluation: Evaluation, most: int) -> list[Confusion]:
    """The pairs of different classes with the largest shares of the true class, largest first."""
    shares = np.nan_to_num(row_shares(evaluation.pixels))
    np.fill_diagonal(shares, 0.0)
    order = np.argsort(-shares, axis=None, kind="stable")[:most]
    found = []
    for index in order:
        row, column = divmod(int(index), shares.shape[1])
        if shares[row, column] > 0:
            names = evaluation.classes[row], evaluation.classes[column]
            found.append(
                Confusion(*names, float(shares[row, column]), int(evaluation.pixels[row, column]))
            )
    return found


def draw_confusion(evaluation: Evaluation) -> Markup:
    """Draw the heat map: rows are true classes, each sums to 100 %; a cell's tooltip words it."""
    shares = row_shares(evaluation.pixels)
    names = evaluation.classes
    size = len(names)
    side = size * CELL
    numbered = size <= MAX_NUMBERED
    parts = [
        _names(names),
        tag("rect", x=LABEL, y=LABEL, width=side, height=side, class_="frame"),
    ]
    for row in range(size):
        if np.isnan(shares[row]).any():
            told = tag("title", f"{names[row]} is not in the truth")
            place = {"x": LABEL, "y": LABEL + row * CELL, "width": side, "height": CELL}
            parts.append(tag("rect", told, class_="absent", **place))
            continue
        for column in range(size):
            if shares[row, column] >= SMALLEST_DRAWN:
                parts.append(_cell(names, row, column, float(shares[row, column]), numbered))
    whole = LABEL + side + 2
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {whole} {whole}",
        # No larger than its numbers need, and no smaller than they can be read.
        style=f"max-width:{whole:.0f}px;min-width:{min(whole * 0.85, 620):.0f}px",
        role="img",
        aria_label=f"Confusion matrix of {evaluation.dataset}: {_in_words(evaluation)}",
        class_="confusion",
    )


def _in_words(evaluation: Evaluation) -> str:
    told = [
        f"{100 * found.share:.1f} % of {found.true} predicted as {found.predicted}"
        for found in largest_confusions(evaluation, 3)
    ]
    return f"the largest confusions are {'; '.join(told)}." if told else "nothing is confused."


def _names(names: Sequence[str]) -> Markup:
    parts = []
    for index, name in enumerate(names):
        middle = LABEL + (index + 0.5) * CELL
        full = tag("title", name)
        short = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
        place = {"x": LABEL - 7, "y": number(middle), "dy": "0.35em"}
        parts.append(tag("text", short, full, class_="end", **place))
        turn = f"translate({number(middle)},{LABEL - 7}) rotate(-90)"
        parts.append(tag("text", short, full, transform=turn, dy="0.35em"))
    corner = tag("text", "true ↓  predicted →", x=0, y=12, class_="soft")
    return join(corner, *parts)


def _cell(names: Sequence[str], row: int, column: int, share: float, numbered: bool) -> Markup:
    x, y = LABEL + column * CELL, LABEL + row * CELL
    told = tag("title", f"{names[row]} predicted as {names[column]}: {100 * share:.2f} %")
    # The root lets small shares be seen beside large ones.
    opacity = f"{share**0.5:.3f}"
    kind = "right" if row == column else "wrong"
    place = {"x": x, "y": y, "width": CELL, "height": CELL}
    cell = tag("rect", told, fill_opacity=opacity, class_=kind, **place)
    if not numbered or share < SMALLEST_WRITTEN:
        return cell
    strength = "strong-cell" if share**0.5 > STRONG else None
    text = f"{100 * share:.0f}"
    at = {"x": number(x + CELL / 2), "y": number(y + CELL / 2), "dy": "0.35em"}
    return join(cell, tag("text", text, told, class_=f"middle {strength or ''}".strip(), **at))
