"""The head of the page: what was trained, how far, how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schnet.reporting.class_table import percent
from schnet.reporting.markup import Markup, tag
from schnet.reporting.run_files import Run


@dataclass(frozen=True)
class ParameterRow:
    """Parameters of a part of the model.

    Attributes:
        name: of the part.
        trained: number of scalars that train.
        frozen: number of those that do not.
    """

    name: str
    trained: int
    frozen: int


def headline(run: Run, parameters: Sequence[ParameterRow]) -> Markup:
    """Draw the title, the model in a sentence, and the run's key figures."""
    trained_on = ", ".join(str(name) for name in run.setting("DATASETS.TRAIN", ()))
    title = ", ".join(run.datasets) or run.folder.name
    return tag(
        "header",
        tag("p", "SCHNet · report of a training run", class_="eyebrow"),
        tag("h1", title),
        tag("p", describe_status(run), class_="status"),
        tag(
            "p",
            f"{describe_model(run)}{f' Trained on {trained_on}.' if trained_on else ''}",
            class_="lede",
        ),
        *_protocols(run),
        _figures(run, parameters),
    )


def describe_status(run: Run) -> str:
    """Say in one sentence how the run ended, or how far it is."""
    done, planned = run.history.last_iteration + 1, run.setting("SOLVER.MAX_ITER")
    if run.stop_reason:
        return f"Ended before its last iteration: {run.stop_reason}."
    if run.is_finished:
        return "Finished."
    if not done:
        return "Not finished: no step has been recorded yet."
    told = f"Not finished: it has come to {done:,}"
    return f"{told} of {planned:,} iterations." if planned else f"{told} iterations."


def describe_model(run: Run) -> str:
    """Say in a sentence what the model is put together from."""
    sam, clip = run.setting("MODEL.SAM.VARIANT"), run.setting("MODEL.CLIP.VARIANT")
    if not sam or not clip:
        return "The run's config is missing, so the model is not known."
    backbone = "CLIP's own features alone"
    if run.setting("MODEL.BACKBONE.NAME") != "ClipBackbone":
        state = "frozen" if run.setting("MODEL.SAM.FREEZE", True) else "trained too"
        backbone = f"SAM {_variant(sam)} ({state})"
    if not run.setting("MODEL.FTM.ENABLED", True):
        tuning = "without feature tuning (FTM)"
    else:
        tuning = f"tuned by {run.setting('MODEL.FTM.NUM_TOKENS')} tokens a layer (FTM)"
    if not run.setting("MODEL.SRM.ENABLED", True):
        refining = "without CLIP's semantics (SRM)"
    else:
        way = "fed back" if run.setting("MODEL.SRM.FEEDBACK", True) else "for the head only"
        refining = f"with the semantics of CLIP {clip} (SRM, {way})"
    kind = run.setting("MODEL.SEM_SEG_HEAD.CLASSIFIER", "linear")
    classes = run.setting("MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    return f"{backbone}, {tuning}, {refining}; {kind} classifier of {classes} labels."


def _variant(name: str) -> str:
    """SAM's variants as its paper writes them: ViT-L."""
    return f"ViT-{name[-1].upper()}" if name.startswith("vit_") else name


def _protocols(run: Run) -> list[Markup]:
    protocols = dict.fromkeys(evaluation.protocol for evaluation in run.evaluations)
    return [tag("p", f"Protocol: {protocol}.", class_="soft") for protocol in protocols]


def _figures(run: Run, parameters: Sequence[ParameterRow]) -> Markup:
    return tag("dl", *_metric_figures(run), *_size_figures(run, parameters), class_="figures")


def _figure(name: str, value: str, note: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", note)))


def _metric_figures(run: Run) -> list[Markup]:
    figures = []
    best = run.best
    if best is not None:
        told = f"at iteration {best.iteration:,}"
        if len(run.datasets) > 1:
            told += f", {best.name.split('/')[0]}"
        value = f"{best.value:.4g}" if "loss" in run.best_metric else percent(best.value)
        unit = "" if "loss" in run.best_metric else " %"
        figures.append(_figure(f"Best {run.best_metric}", value + unit, told))
    for evaluation in run.evaluations:
        shown = [name for name in ("mIoU", "pACC", "mACC") if name in evaluation.metrics]
        first, *others = shown
        note = " · ".join(f"{name} {percent(evaluation.metrics[name])}" for name in others)
        name = f"{first} as evaluated last"
        if len(run.evaluations) > 1:
            name += f", {evaluation.dataset}"
        figures.append(_figure(name, f"{percent(evaluation.metrics[first])} %", note))
    return figures


def _size_figures(run: Run, parameters: Sequence[ParameterRow]) -> list[Markup]:
    history = run.history
    planned = run.setting("SOLVER.MAX_ITER")
    batch = run.setting("SOLVER.IMS_PER_BATCH")
    figures = [
        _figure(
            "Iterations",
            f"{history.last_iteration + 1:,}",
            (f"of {planned:,}" if planned else "") + (f", {batch} images each" if batch else ""),
        )
    ]
    seconds = history.seconds()
    if seconds:
        rates = [value for _, value in history.series("images_per_second")]
        rate = f", {rates[-1]:.3g} images per second" if rates else ""
        figures.append(_figure("Time", duration(seconds), f"in training steps{rate}"))
    if parameters:
        trained = sum(row.trained for row in parameters)
        frozen = sum(row.frozen for row in parameters)
        share = 100 * trained / max(trained + frozen, 1)
        figures.append(
            _figure("Trained parameters", short_count(trained), f"{share:.2g} % of the model")
        )
    return figures


def duration(seconds: float) -> str:
    """Write a time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def short_count(count: int) -> str:
    """Write a large number with three digits: 12.3 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return str(count)
