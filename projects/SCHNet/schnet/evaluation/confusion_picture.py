"""The picture of a confusion matrix: where each class's pixels went."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from schnet.data.files import atomic_path
from schnet.evaluation.confusion import Counts, ratio

INK = "#222222"
RULE = "#e4e4e4"
UNDEFINED_COLOR = "#ececec"
COLORS = LinearSegmentedColormap.from_list(
    "confusion", ["#ffffff", "#dbe9f6", "#9ec9e2", "#4a98c9", "#1864aa", "#08306b"]
)
DARK_CELL = 0.45
DOTS_PER_INCH = 110
CELL_INCHES = 0.42
# More classes than this make cells too small for numbers, and the picture too large.
MAX_NUMBERED = 40
MAX_SIDE_INCHES = 20.0
MIN_SIZE_INCHES = (6.0, 4.2)
MARGIN_INCHES = (3.2, 2.4)
SMALLEST_SHOWN = 0.5


def save_confusion_picture(
    path: str | os.PathLike[str], class_names: Sequence[str], counts: Counts, title: str
) -> None:
    """Draw a confusion matrix as a PNG, atomically.

    Each row is a true class and sums to 100 %; the diagonal is its recall. Rows of classes that
    are not in the truth are grey.

    Args:
        path: the PNG.
        class_names: K names.
        counts: (K, K), rows the truth, columns the prediction.
        title: stands above.
    """
    side = min(len(class_names) * CELL_INCHES, MAX_SIDE_INCHES)
    # Without pyplot: no global state, and no window system is looked for.
    width, height = (
        max(least, side + margin)
        for least, margin in zip(MIN_SIZE_INCHES, MARGIN_INCHES, strict=True)
    )
    figure = Figure((width, height), dpi=DOTS_PER_INCH, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    FigureCanvasAgg(figure)
    true = counts.sum(axis=1, keepdims=True).astype(np.float64)
    shares = ratio(counts.astype(np.float64), np.broadcast_to(true, counts.shape))
    axes = figure.add_subplot()
    _draw_cells(axes, class_names, np.ma.masked_invalid(shares))
    if len(class_names) <= MAX_NUMBERED:
        _write_numbers(axes, 100 * shares)
    figure.suptitle(title, color=INK, fontsize=12)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _draw_cells(axes: Axes, class_names: Sequence[str], shares: np.ma.MaskedArray) -> None:
    size = len(class_names)
    axes.set_facecolor(UNDEFINED_COLOR)
    # The square root lets a confusion of a few percent be seen beside the diagonal.
    picture = axes.imshow(shares, cmap=COLORS, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    ticks = range(size)
    font_size = min(9.0, 9.0 * MAX_NUMBERED / size)
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, class_names)
    axes.tick_params(length=0, labelsize=font_size, labelcolor=INK)
    axes.set_xlabel("predicted class", color=INK, fontsize=10)
    axes.set_ylabel("true class", color=INK, fontsize=10)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=RULE, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = axes.figure.colorbar(picture, ax=axes, shrink=0.75, aspect=30, pad=0.02)
    percents = [0, 1, 5, 10, 25, 50, 75, 100]
    bar.set_ticks([percent / 100 for percent in percents], labels=[f"{p} %" for p in percents])
    bar.set_label("share of the true class", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, labelcolor=INK, length=0)
    bar.outline.set_visible(False)


def _write_numbers(axes: Axes, percents: np.ndarray) -> None:
    """Write the percentage into each cell that rounds to at least one."""
    for row, column in np.argwhere(percents >= SMALLEST_SHOWN):
        value = percents[row, column]
        axes.text(
            column,
            row,
            f"{value:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if row == column else "normal",
            color="white" if value >= 100 * DARK_CELL else INK,
        )
