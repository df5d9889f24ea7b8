"""Making `report.html` of a run's folder, at any time of the run."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.reporting.class_table import Palette
from schnet.reporting.evaluation_section import Gallery, Group, evaluation_section
from schnet.reporting.examples import Predict, best_and_worst, encode_within, load_examples
from schnet.reporting.headline import ParameterRow
from schnet.reporting.markup import Markup
from schnet.reporting.page import MARKER, build_page
from schnet.reporting.run_files import EVALUATION_FOLDERS, Evaluation, Run, read_run

REPORT_FILE = "report.html"
PICTURE_BYTES = 2_200_000
"""For the pictures of the whole page, which is to stay below 3 MB."""
DEFAULT_SAMPLES = 4


@dataclass(frozen=True)
class Predictor:
    """The model that draws the best and worst images.

    Attributes:
        predict: from a data set's dict to labels.
        weights: whose they are, such as `model_best.pth`.
    """

    predict: Predict
    weights: str


def write_report(
    folder: Path,
    predictor: Predictor | None = None,
    parameters: Sequence[ParameterRow] = (),
) -> Path:
    """Write a run's `report.html`, atomically, in place of an earlier one.

    What the run does not hold yet is told in a sentence in its place. Its data sets must be
    registered for the classes' colours and the pictures.

    Args:
        folder: OUTPUT_DIR.
        predictor: parses the best and worst images; None lists them without pictures.
        parameters: of the model's parts; empty where they are not known.

    Returns:
        The file.

    Raises:
        InputError: it is no run's folder, one of its files is damaged, or a `report.html` is
            there that no report is.
    """
    target = folder / REPORT_FILE
    refuse_foreign_report(target)
    run = read_run(folder)
    sections = [_section(run, evaluation, predictor) for evaluation in run.evaluations]
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    text = build_page(run, parameters, sections, f"Made {now} from the files of the run.")
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def refuse_foreign_report(path: Path) -> None:
    """Refuse to write over a file that is no report of ours.

    Raises:
        InputError: names it.
    """
    if not path.exists():
        return
    if path.is_file():
        with open(path, "rb") as file:
            if MARKER.encode() in file.read(200):
                return
    raise InputError(
        f"{path} is no report of a run and would be overwritten: move it away, and make the "
        "report with tools/report.py"
    )


def _section(run: Run, evaluation: Evaluation, predictor: Predictor | None) -> Markup:
    palette = _palette(evaluation)
    gallery = _gallery(run, evaluation, palette, predictor)
    return evaluation_section(evaluation, palette, gallery, _source(run, evaluation))


def _palette(evaluation: Evaluation) -> Palette | None:
    """The classes' colours, where the data set is registered with these classes."""
    if evaluation.dataset not in DatasetCatalog.list():
        return None
    metadata = MetadataCatalog.get(evaluation.dataset)
    if list(metadata.get("stuff_classes", ())) != list(evaluation.classes):
        return None
    colors: Palette | None = metadata.get("stuff_colors")
    return colors


def _source(run: Run, evaluation: Evaluation) -> str:
    """Say which evaluation the numbers are of."""
    try:
        name = str(evaluation.folder.relative_to(run.folder))
    except ValueError:
        name = str(evaluation.folder)
    if evaluation.folder.parent.name != EVALUATION_FOLDERS[0]:
        return f"Of an evaluation apart from the training (--eval-only), in {name}."
    values = [
        run.history.series(full)
        for full in run.history.names("mIoU")
        if len(run.datasets) < 2 or full.startswith(f"{evaluation.dataset}/")
    ]
    if not values or not values[0]:
        return f"Of the newest evaluation, in {name}."
    iteration = values[0][-1][0]
    told = f"Of the newest evaluation during the training, after iteration {iteration:,}, in {name}"
    best = run.best
    if best is not None and best.iteration != iteration:
        told += f"; the best {run.best_metric} was reached earlier, at iteration {best.iteration:,}"
    return f"{told}."


def _gallery(
    run: Run, evaluation: Evaluation, palette: Palette | None, predictor: Predictor | None
) -> Gallery:
    count = int(run.setting("TEST.SAMPLE_IMAGES", DEFAULT_SAMPLES))
    if count == 0:
        return Gallery((), "None are shown: TEST.SAMPLE_IMAGES is 0.")
    if not evaluation.scores:
        return Gallery(
            (),
            "None are shown: this evaluation has no scores of single images (per_image.csv).",
        )
    best, worst = best_and_worst(evaluation.scores, count)
    groups = [Group("Best", best), Group("Worst", worst)]
    chosen = f"By the mIoU of each of {len(evaluation.scores):,} images."
    if predictor is None:
        return Gallery(groups, f"{chosen} This report was made without the model's predictions.")
    if palette is None:
        return Gallery(groups, f"{chosen} No pictures: the data set is not registered here.")
    try:
        return _with_pictures(run, evaluation, palette, predictor, groups, chosen)
    except InputError as error:
        return Gallery(groups, f"{chosen} No pictures: {error}.")


def _with_pictures(
    run: Run,
    evaluation: Evaluation,
    palette: Palette,
    predictor: Predictor,
    groups: Sequence[Group],
    chosen: str,
) -> Gallery:
    ignore_label = int(MetadataCatalog.get(evaluation.dataset).ignore_label)
    scores = [score for group in groups for score in group.scores]
    examples = list(load_examples(evaluation.dataset, scores, predictor.predict))
    budget = PICTURE_BYTES // len(run.evaluations)
    pictures = encode_within(examples, palette, ignore_label, budget)
    shown = list(zip(examples, pictures, strict=False))
    start, with_pictures = 0, []
    for group in groups:
        own = shown[start : start + len(group.scores)]
        with_pictures.append(Group(group.title, group.scores, own))
        start += len(group.scores)
    note = f"{chosen} Predicted with {predictor.weights}."
    if len(shown) < len(examples):
        note += f" {len(examples) - len(shown)} are left out to keep this page small."
    return Gallery(with_pictures, note, ignore_label)
