"""The page's section on one data set: classes, confusions, best and worst images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schnet.evaluation.per_image import ImageScore
from schnet.reporting.class_table import Palette, class_table, percent, swatch
from schnet.reporting.confusion_chart import draw_confusion, largest_confusions
from schnet.reporting.examples import Example, Pictures
from schnet.reporting.markup import Markup, join, tag
from schnet.reporting.run_files import Evaluation
from schnet.reporting.training_section import scrollable

MAX_CONFUSIONS = 8
SAME = 0.005
"""Percentages that differ by less are written alike."""


@dataclass(frozen=True)
class Group:
    """Images of a kind.

    Attributes:
        title: heading.
        scores: of the images.
        shown: the images with pictures; fewer than `scores`, or none, where there are none.
    """

    title: str
    scores: Sequence[ImageScore]
    shown: Sequence[tuple[Example, Pictures]] = ()


@dataclass(frozen=True)
class Gallery:
    """The images of a data set that the page shows.

    Attributes:
        groups: the best and the worst.
        note: a sentence on what the pictures are, or why there are none.
        ignore_label: label of the pixels without one.
    """

    groups: Sequence[Group]
    note: str
    ignore_label: int = 255


def evaluation_section(
    evaluation: Evaluation, palette: Palette | None, gallery: Gallery, source: str
) -> Markup:
    """Draw the section.

    Args:
        evaluation: of the data set.
        palette: K colours (r, g, b) in 0..255; None where they are not known.
        gallery: the best and worst images.
        source: where the numbers come from, as a sentence.
    """
    means = ("mIoU", "pACC", "mACC", "fwIoU", "mPrecision", "mBF")
    told = " · ".join(
        f"{name} {percent(evaluation.metrics[name])}"
        for name in means
        if name in evaluation.metrics
    )
    return join(
        tag(
            "section",
            tag("h2", f"Classes of {evaluation.dataset}"),
            tag("p", f"{evaluation.images:,} images, in percent: {told}."),
            tag("p", source, class_="soft"),
            scrollable(class_table(evaluation, palette), f"Classes of {evaluation.dataset}"),
        ),
        _confusion(evaluation),
        _gallery(evaluation, palette, gallery),
    )


def _confusion(evaluation: Evaluation) -> Markup:
    rows = [
        tag(
            "tr",
            tag("th", found.true, scope="row"),
            tag("td", found.predicted),
            tag("td", f"{100 * found.share:.2f}", class_="number"),
            tag("td", f"{found.pixels:,}", class_="number soft"),
        )
        for found in largest_confusions(evaluation, MAX_CONFUSIONS)
    ]
    heads = [
        tag("th", "true class", scope="col"),
        tag("th", "predicted as", scope="col"),
        tag("th", "% of its pixels", scope="col", class_="number"),
        tag("th", "pixels", scope="col", class_="number"),
    ]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="plain")
    label = f"Confusion matrix of {evaluation.dataset}"
    caption = (
        "Each row is a true class and sums to 100 %; the numbers are percent, the diagonal is the "
        "recall. The shade grows with the root of the share, so that small confusions show."
    )
    return tag(
        "section",
        tag("h2", "Confusions"),
        tag("p", caption, class_="soft"),
        tag(
            "div",
            tag("figure", scrollable(draw_confusion(evaluation), label)),
            tag("div", tag("h3", "The largest"), scrollable(table, label)) if rows else None,
            class_="side",
        ),
    )


def _gallery(evaluation: Evaluation, palette: Palette | None, gallery: Gallery) -> Markup:
    parts = [tag("h2", "Best and worst images"), tag("p", gallery.note, class_="soft")]
    for group in gallery.groups:
        if not group.scores:
            continue
        parts.append(tag("h3", group.title))
        if group.shown:
            examples = [_example(evaluation, *shown) for shown in group.shown]
            parts.append(tag("div", *examples, class_="examples"))
        else:
            parts.append(_score_table(group))
    shown = [example for group in gallery.groups for example, _ in group.shown]
    if shown and palette is not None:
        parts.append(_legend(evaluation, palette, shown, gallery.ignore_label))
    return tag("section", *parts)


def _score_table(group: Group) -> Markup:
    rows = [
        tag(
            "tr",
            tag("th", score.image_id, scope="row"),
            tag("td", percent(score.mIoU), class_="number"),
        )
        for score in group.scores
    ]
    head = tag(
        "tr", tag("th", "image", scope="col"), tag("th", "mIoU (%)", scope="col", class_="number")
    )
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="plain")
    return scrollable(table, group.title)


def _example(evaluation: Evaluation, example: Example, pictures: Pictures) -> Markup:
    image_id = example.score.image_id
    parts = []
    for kind, uri, alternative in (
        ("photo", pictures.photo, f"Photo {image_id}"),
        ("truth", pictures.truth, f"True labels: {_labels_in(evaluation, example.truth)}"),
        (
            "prediction",
            pictures.prediction,
            f"Predicted labels: {_labels_in(evaluation, example.prediction)}",
        ),
    ):
        size = {"width": pictures.width, "height": pictures.height}
        picture = tag("img", src=uri, alt=alternative, **size)
        parts.append(tag("div", picture, tag("span", kind)))
    told = [tag("span", f"mIoU {percent(example.miou)} %", class_="score"), f" · {image_id}"]
    if abs(example.miou - example.score.mIoU) >= SAME:
        told.append(f" · {percent(example.score.mIoU)} % in the evaluation above")
    return tag(
        "figure",
        tag("div", *parts, class_="triple"),
        tag("figcaption", *told),
        class_="example",
    )


def _labels_in(evaluation: Evaluation, labels: np.ndarray) -> str:
    size = len(evaluation.classes)
    found = [evaluation.classes[label] for label in np.unique(labels) if label < size]
    return ", ".join(found) or "none"


def _legend(
    evaluation: Evaluation, palette: Palette, shown: Sequence[Example], ignore_label: int
) -> Markup:
    maps = [labels for example in shown for labels in (example.truth, example.prediction)]
    present = sorted({int(label) for labels in maps for label in np.unique(labels)})
    items = [
        tag("li", swatch(palette[label]), evaluation.classes[label])
        for label in present
        if label != ignore_label
    ]
    if ignore_label in present:
        items.append(tag("li", "hatched: not labelled"))
    return tag("ul", *items, class_="legend")
