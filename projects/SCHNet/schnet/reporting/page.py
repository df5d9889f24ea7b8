"""The page as a whole: its sections in order, and what frames them."""

from __future__ import annotations

from collections.abc import Sequence

from schnet.reporting.headline import ParameterRow, headline
from schnet.reporting.markup import Markup, join, tag
from schnet.reporting.run_files import Run
from schnet.reporting.style import STYLE
from schnet.reporting.training_section import scrollable, training_section

MARKER = "<!-- schnet-report/1 -->"
"""Stands at the start of a report, which tells it from other files of its name."""
# Nothing is ever fetched, whatever a name in the page says.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
ENVIRONMENT_SHOWN = ("Python", "PyTorch", "torchvision", "detectron2", "GPU available", "GPU 0")


def build_page(
    run: Run, parameters: Sequence[ParameterRow], evaluations: Sequence[Markup], made: str
) -> str:
    """Put the page together.

    Args:
        run: the run's folder.
        parameters: of the model's parts; empty where the model was not built.
        evaluations: a section for each data set.
        made: when and how the page was made, as a sentence.

    Returns:
        A whole HTML document that needs no other file.
    """
    title = f"SCHNet · {', '.join(run.datasets) or run.folder.name}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    sections = list(evaluations) or [_no_evaluation()]
    main = tag(
        "main",
        headline(run, parameters),
        training_section(run),
        *sections,
        _run_section(run, parameters),
    )
    body = tag("body", main, _footer(run, made))
    return f"<!DOCTYPE html>\n{MARKER}\n{tag('html', head, body, lang='en')}\n"


def _no_evaluation() -> Markup:
    return tag(
        "section",
        tag("h2", "Classes"),
        tag(
            "p",
            "There has been no evaluation yet (TEST.EVAL_PERIOD), so there are no metrics of the "
            "classes, no confusion matrix and no predictions to show.",
            class_="note",
        ),
    )


def _run_section(run: Run, parameters: Sequence[ParameterRow]) -> Markup:
    return tag(
        "section",
        tag("h2", "Model, environment and config"),
        _parameter_table(parameters),
        _environment(run),
        *(
            tag("details", tag("summary", "Config: ", tag("code", name)), tag("pre", text))
            for name, text in run.config_texts.items()
        ),
        None
        if run.config_texts
        else tag("p", "The run's folder holds no config.yaml.", class_="note"),
    )


def _parameter_table(parameters: Sequence[ParameterRow]) -> Markup:
    if not parameters:
        told = "The parameters are not counted, since this report was made without the model."
        return tag("p", told, class_="note")
    total = ParameterRow(
        "total", sum(row.trained for row in parameters), sum(row.frozen for row in parameters)
    )
    rows = [
        tag(
            "tr",
            tag("th", row.name, scope="row"),
            tag("td", f"{row.trained:,}", class_="number"),
            tag("td", f"{row.frozen:,}", class_="number"),
            class_="mean" if row is total else None,
        )
        for row in (*parameters, total)
    ]
    heads = [tag("th", "parameters of", scope="col")]
    heads += [tag("th", name, scope="col", class_="number") for name in ("trained", "frozen")]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="plain")
    return scrollable(table, "Parameters")


def _environment(run: Run) -> Markup:
    if not run.environment:
        told = "The environment is not known: the run's folder holds no log.txt that tells it."
        return tag("p", told, class_="note")
    known = dict(run.environment)
    # Without the paths and compilers behind the versions.
    versions = {name: value.split(" @")[0].split(" (")[0] for name, value in known.items()}
    short = [f"{name} {versions[name]}" for name in ENVIRONMENT_SHOWN if name in versions]
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in run.environment
    ]
    table = tag("table", tag("tbody", *rows), class_="plain")
    return join(
        tag("p", " · ".join(short)),
        tag("details", tag("summary", "Environment"), scrollable(table, "Environment")),
    )


def _footer(run: Run, made: str) -> Markup:
    return tag(
        "footer",
        tag("p", made),
        tag(
            "p",
            "Iterations count from 0, as in metrics.json and in the checkpoints' names. An "
            "image's mIoU is the mean over the classes in its own truth or prediction, so that "
            "the images' mean is not the data set's mIoU. Folder: ",
            tag("code", str(run.folder)),
        ),
    )
