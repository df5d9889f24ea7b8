"""The page's section on the training: its curves and the evaluations in between."""

from __future__ import annotations

from collections.abc import Sequence

from schnet.reporting.class_table import percent
from schnet.reporting.curves import Chart, Line, draw_chart
from schnet.reporting.history import STEP_METRIC, History, Point, smoothed
from schnet.reporting.markup import Markup, tag
from schnet.reporting.run_files import Run

SMOOTHING_SHARE = 30
"""The smoothed loss is a mean over this fraction of the run's records."""
VALIDATION_LOSS = "val/loss"
STYLES = ("main", "second", "third")
MAX_ROWS = 200


def training_section(run: Run) -> Markup:
    """Draw the curves of loss, metrics, learning rate and gradient, and tell what is missing."""
    if not run.history.records:
        return tag(
            "section",
            tag("h2", "Training"),
            tag("p", "There are no curves: the run has no metrics.json yet.", class_="note"),
        )
    charts = [chart for chart in _charts(run) if any(line.points for line in chart.lines)]
    figures = [draw_chart(chart) for chart in charts]
    return tag(
        "section",
        tag("h2", "Training"),
        *(tag("p", sentence, class_="soft") for sentence in _remarks(run)),
        tag("div", *figures, class_="curves"),
        _evaluations(run),
    )


def _charts(run: Run) -> list[Chart]:
    history, last = run.history, run.history.last_iteration
    loss = _loss_lines(history)
    charts = [Chart("Loss", loss, last, run.resumes)]
    for metric in dict.fromkeys(("mIoU", run.best_metric)):
        if metric != VALIDATION_LOSS:
            charts.append(_metric_chart(run, metric))
    rate = [Line("learning rate", history.series("lr"))]
    charts.append(Chart("Learning rate", rate, last, run.resumes))
    norm = Line("gradient norm", history.series("grad_norm"))
    title = "Gradient norm before clipping"
    charts.append(Chart(title, [norm], last, run.resumes, allow_log=True))
    return charts


def _loss_lines(history: History) -> list[Line]:
    raw = history.series(STEP_METRIC)
    window = _window(raw)
    lines = [Line("training loss", raw, "main")]
    if window > 1:
        lines = [
            Line("training loss", raw, "raw"),
            Line(f"mean of {window} values", smoothed(raw, window), "main"),
        ]
    for name in history.names(VALIDATION_LOSS)[:1]:
        lines.append(Line("validation loss", history.series(name), "second"))
    return lines


def _window(points: Sequence[Point]) -> int:
    """An odd number of values to take the mean of; 1 where there are too few to smooth."""
    return 2 * (len(points) // (2 * SMOOTHING_SHARE)) + 1


def _metric_chart(run: Run, metric: str) -> Chart:
    names = run.history.names(metric)
    prefixed = len(names) > 1
    lines = [
        Line(name.split("/")[0] if prefixed else metric, run.history.series(name), style)
        for name, style in zip(names, STYLES * (1 + len(names)), strict=False)
    ]
    best = None
    if metric == run.best_metric and run.best is not None:
        best = ((run.best.iteration, run.best.value), f"best {run.best.value:.2f}")
    last = run.history.last_iteration
    unit = "" if "loss" in metric else " (%)"
    return Chart(f"{metric}{unit}", lines, last, run.resumes, best)


def _remarks(run: Run) -> list[str]:
    """What a reader must know of the curves, and why one is not there."""
    history = run.history
    told = []
    if run.resumes:
        places = ", ".join(f"{iteration:,}" for iteration in run.resumes)
        told.append(
            f"The run was interrupted and resumed at iteration {places}: upright dashed lines."
        )
    if not history.names("mIoU"):
        told.append("There has been no evaluation yet, so there is no curve of the mIoU.")
    if not history.names(VALIDATION_LOSS):
        told.append("No validation loss was recorded (TEST.LOSS_IMAGES).")
    if history.unreadable:
        plural = " was" if history.unreadable == 1 else "s were"
        told.append(
            f"{history.unreadable} unreadable line{plural} left out of metrics.json, such as a "
            "kill in the middle of writing leaves."
        )
    return told


def _evaluations(run: Run) -> Markup | None:
    """The evaluations' numbers as a table, which also says the curves without a picture."""
    metrics = dict.fromkeys(("mIoU", "pACC", "mACC", "mBF", VALIDATION_LOSS, run.best_metric))
    names = [name for metric in metrics for name in run.history.names(metric)]
    rows = [record for record in run.history.records if any(name in record for name in names)]
    if not rows:
        return None
    shown = rows[-MAX_ROWS:]
    head = [tag("th", "iteration", scope="col", class_="number")]
    head += [tag("th", name, scope="col", class_="number") for name in names]
    body = [
        tag(
            "tr",
            tag("th", f"{int(record['iteration']):,}", scope="row", class_="number"),
            *(tag("td", _value(name, record.get(name)), class_="number") for name in names),
        )
        for record in shown
    ]
    count = f"{len(rows)} evaluations" if len(rows) > 1 else "1 evaluation"
    if len(shown) < len(rows):
        count += f", the last {len(shown)}"
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="plain")
    return tag("details", tag("summary", f"{count} in numbers"), scrollable(table, count))


def _value(name: str, value: float | None) -> str:
    if value is not None and "loss" in name:
        return f"{value:.4f}"
    return percent(value)


def scrollable(content: Markup, label: str) -> Markup:
    """Let wide content scroll by itself, by touch and by keyboard."""
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)
