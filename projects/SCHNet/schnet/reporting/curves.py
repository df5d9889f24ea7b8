"""Curves over the iterations of a run, as SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schnet.reporting.axes import (
    Axis,
    exponent_of,
    iteration_axis,
    iteration_text,
    superscript,
    tick_text,
    value_axis,
)
from schnet.reporting.history import Point, thinned
from schnet.reporting.markup import Markup, join, number, tag

WIDTH, HEIGHT = 460, 236
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 16, 42
MAX_POINTS = 700
MARKED = 60
"""A line of no more points than this has a mark at each."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: what the legend calls it.
        points: ascending.
        style: class of its look: `raw`, `main`, `second`, `third`.
    """

    label: str
    points: Sequence[Point]
    style: str = "main"


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        title: heading, with the unit.
        lines: at least one point among them.
        last: the run's last iteration, where the axis ends.
        resumes: iterations that the run was resumed at; each gets an upright line.
        best: the point that is marked, and its label.
        allow_log: take a logarithmic axis where the values are far apart.
    """

    title: str
    lines: Sequence[Line]
    last: int
    resumes: Sequence[int] = ()
    best: tuple[Point, str] | None = None
    allow_log: bool = False


def draw_chart(chart: Chart) -> Markup:
    """Draw a chart with axes, legend and marks; it names its content to a screen reader.

    Raises:
        ValueError: there is no point.
    """
    x_axis = iteration_axis(chart.last)
    y_axis = value_axis([v for line in chart.lines for _, v in line.points], chart.allow_log)
    exponent = exponent_of(y_axis)
    title = chart.title + (f" (×10{superscript(exponent)})" if exponent else "")
    title += ", logarithmic" if y_axis.logarithmic else ""
    parts = [
        _grid(x_axis, y_axis, exponent),
        *(_resume(x_axis, iteration) for iteration in chart.resumes),
        *(_line(line, x_axis, y_axis) for line in chart.lines),
    ]
    if chart.best is not None:
        parts.append(_best(chart.best, x_axis, y_axis))
    drawing = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=_summary(chart),
        class_="chart",
    )
    return tag("figure", tag("h3", title), _legend(chart.lines), drawing)


def _summary(chart: Chart) -> str:
    """Say in words what a chart shows."""
    told = []
    for line in chart.lines:
        if line.points and line.style != "raw":
            (start, first), (end, last) = line.points[0], line.points[-1]
            told.append(f"{line.label} from {first:.4g} at {start:,} to {last:.4g} at {end:,}")
    return f"{chart.title} over iterations: {'; '.join(told) or 'no line'}."


def _x(axis: Axis, iteration: float) -> float:
    return LEFT + axis.place(iteration) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _grid(x_axis: Axis, y_axis: Axis, exponent: int) -> Markup:
    parts = []
    for tick in y_axis.ticks:
        y = number(_y(y_axis, tick))
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        text = tick_text(tick, exponent)
        parts.append(tag("text", text, x=LEFT - 7, y=y, dy="0.35em", class_="tick end"))
    base = HEIGHT - BOTTOM
    for tick in x_axis.ticks:
        x = number(_x(x_axis, tick))
        parts.append(tag("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis"))
        parts.append(tag("text", iteration_text(tick), x=x, y=base + 17, class_="tick middle"))
    parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", "iteration", x=middle, y=HEIGHT - 5, class_="tick middle soft"))
    return join(*parts)


def _legend(lines: Sequence[Line]) -> Markup | None:
    """The lines' names, each behind a sample of the line; none for a single line."""
    if len(lines) < 2:
        return None
    items = []
    for line in lines:
        sample = [tag("line", x1=1, x2=27, y1=6, y2=6, class_=f"line {line.style}")]
        if _is_marked(line):
            sample.append(_mark(line.style, 14, 6))
        drawing = tag("svg", *sample, viewBox="0 0 28 12", aria_hidden="true", class_="sample")
        items.append(tag("li", drawing, line.label))
    return tag("ul", *items, class_="legend")


def _line(line: Line, x_axis: Axis, y_axis: Axis) -> Markup:
    points = [(_x(x_axis, i), _y(y_axis, v)) for i, v in thinned(line.points, MAX_POINTS)]
    path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    parts = [tag("polyline", points=path, class_=f"line {line.style}")]
    if _is_marked(line):
        for (iteration, value), (x, y) in zip(line.points, points, strict=True):
            told = tag("title", f"{line.label} {value:.4g} at iteration {iteration:,}")
            parts.append(_mark(line.style, x, y, told))
    return join(*parts)


def _is_marked(line: Line) -> bool:
    return line.style != "raw" and len(line.points) <= MARKED


def _mark(style: str, x: float, y: float, told: Markup | None = None) -> Markup:
    """Each style has its own shape, so that lines differ by more than colour."""
    if style == "second":
        place = {"x": number(x - 3), "y": number(y - 3), "width": 6, "height": 6}
        return tag("rect", told, class_="mark second", **place)
    if style == "third":
        path = f"M{number(x)},{number(y - 4)}l4,7h-8z"
        return tag("path", told, d=path, class_="mark third")
    return tag("circle", told, cx=number(x), cy=number(y), r=3, class_=f"mark {style}")


def _resume(x_axis: Axis, iteration: int) -> Markup:
    x = number(_x(x_axis, iteration))
    told = tag("title", f"resumed at iteration {iteration:,}")
    head = f"M{x},{TOP - 1}l4,-7h-8z"
    return join(
        tag("line", told, x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="resume"),
        tag("path", told, d=head, class_="resume-head"),
    )


def _best(best: tuple[Point, str], x_axis: Axis, y_axis: Axis) -> Markup:
    (iteration, value), label = best
    x, y = _x(x_axis, iteration), _y(y_axis, value)
    # On the side that has room.
    at_end = x > (LEFT + WIDTH) / 2
    below = y < TOP + 22
    return join(
        tag("circle", cx=number(x), cy=number(y), r=6.5, class_="best"),
        tag(
            "text",
            label,
            x=number(x - 10 if at_end else x + 10),
            y=number(y + 20 if below else y - 11),
            class_="tick strong end" if at_end else "tick strong",
        ),
    )
