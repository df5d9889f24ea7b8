"""How the time and the memory of inference grow: with image area, batch, labels and FTM's tokens.

The whole model, photos in and label maps out, in fp32. Every axis varies one quantity. The slope
of a straight line through the logarithms is the power that the cost grows with: 1 is linear.
Besides the table it draws growth.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmarks import processes
from benchmarks.growth_picture import draw_growth
from benchmarks.memory import ENVIRONMENT
from benchmarks.models import CLASSES, TOKENS, build_schnet, parse, random_photos
from benchmarks.options import REPOSITORY, Settings, Shape, add_common_arguments, read_settings
from benchmarks.results import (
    Figures,
    as_sample,
    finish,
    markdown_table,
    memory_text,
    read_figures,
    seconds_text,
)
from benchmarks.runner import interleave
from benchmarks.session import Side

from schnet.errors import InputError
from schnet.modeling.clip_fast import REPEATS_TO_PACK
from schnet.modeling.meta_arch import SCHNet

SIZES, QUICK_SIZES = ("224", "448", "672", "896"), ("32", "64")
BATCHES, LABELS, TOKEN_NUMBERS = (1, 2, 4, 8), (7, 20, 150), (25, 100, 400)
PICTURE = "growth.png"
PUBLISHED_PICTURE = REPOSITORY / "docs" / PICTURE


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        shape: of the batch, as `Shape` writes it.
        classes: K, labels.
        tokens: m, FTM's tokens a layer.
    """

    shape: str
    classes: int = CLASSES
    tokens: int = TOKENS

    @property
    def name(self) -> str:
        """A name for it."""
        return f"{self.shape}, {self.classes} labels, {self.tokens} tokens"


class Models:
    """Models of a variant that differ in labels and tokens, and share SAM and CLIP."""

    def __init__(self, variant: str) -> None:
        """Take a key of `SAM_VARIANTS`; models are built when they are asked for."""
        self._variant = variant
        self._built: dict[tuple[int, int], SCHNet] = {}

    def get(self, classes: int, tokens: int) -> SCHNet:
        """Give the model of these numbers."""
        key = (classes, tokens)
        if key not in self._built:
            model: Any = build_schnet(self._variant, classes=classes, tokens=tokens)
            if self._built:
                first: Any = next(iter(self._built.values()))
                model.backbone.encoder = first.backbone.encoder
                model.clip.tower = first.clip.tower
            self._built[key] = model
        return self._built[key]

    def run(self, point: Point) -> None:
        """Parse a point's photos."""
        parse(self.get(point.classes, point.tokens), random_photos(Shape.parse(point.shape)))

    @torch.inference_mode()
    def warm_up(self, point: Point) -> None:
        """Parse a point's photos, and look at them by CLIP until its weights are packed."""
        self.run(point)
        clip = self.get(point.classes, point.tokens).clip
        assert clip is not None, "a model with CLIP"
        photos = random_photos(Shape.parse(point.shape))
        images = torch.stack([photo["image"] for photo in photos]).float()
        for _ in range(REPEATS_TO_PACK):
            clip(images)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    add_common_arguments(parser, variants=("vit_b",), sizes=SIZES, quick_sizes=QUICK_SIZES)


def run(args: argparse.Namespace) -> str:
    """Run the benchmark, and draw its picture into the output folder; with --readme into docs/.

    Args:
        args: what `add_arguments` declares.

    Returns:
        A markdown table.

    Raises:
        InputError: an option is impossible, or the table has no place in the pages.
    """
    settings = read_settings(args)
    if len(settings.shapes) < 2 or any(shape.batch > 1 for shape in settings.shapes):
        raise InputError("--sizes has to name two sizes or more, without batches: they grow apart")
    if len(settings.variants) > 1:
        raise InputError("--variant is given more than once: growth draws one encoder")
    text = finish("growth", settings, measure, render)
    figures = read_figures(settings.output / "growth.json", "growth")["figures"]
    pictures = [settings.output / PICTURE, *([PUBLISHED_PICTURE] if settings.readme else [])]
    for picture in pictures:
        draw_growth(picture, figures["axes"], figures["variant"])
    return text


def axes(shapes: Sequence[Shape]) -> dict[str, dict[int, Point]]:
    """Give the points of each axis by the quantity that varies.

    Args:
        shapes: sizes of the area's axis; the smallest is the batches' and the next one the others'.
    """
    shapes = sorted(shapes, key=lambda shape: shape.pixels)
    small, middle = shapes[0], str(shapes[1])
    batches = {n: Point(str(Shape(small.height, small.width, n))) for n in BATCHES}
    return {
        "pixels": {shape.pixels: Point(str(shape)) for shape in shapes},
        f"images of {small}": batches,
        f"labels, at {middle}": {k: Point(middle, classes=k) for k in LABELS},
        f"FTM's tokens, at {middle}": {m: Point(middle, tokens=m) for m in TOKEN_NUMBERS},
    }


def measure(settings: Settings) -> Figures:
    """Measure all points in the same rounds.

    Returns:
        `variant`, and `axes`: by name the points' `x`, `seconds` and `memory`, and the `slopes`.
    """
    (variant,) = settings.variants
    named = axes(settings.shapes)
    points = list(dict.fromkeys(point for by_x in named.values() for point in by_x.values()))
    models = Models(variant)
    work = {point.name: partial(models.run, point) for point in points}
    memory = _measure_memory(variant, points, settings.threads)
    samples = interleave(work, settings.rounds, title=f"growth of {variant}")
    result = {}
    for name, by_x in named.items():
        rows: list[Figures] = [
            {"x": x, "seconds": samples[point.name].seconds, "memory": memory[point.name]}
            for x, point in by_x.items()
        ]
        xs = list(by_x)
        times = [samples[point.name].median for point in by_x.values()]
        slopes = {"time": slope(xs, times), "memory": _memory_slope(xs, rows)}
        result[name] = {"points": rows, "slopes": slopes}
    return {"variant": variant, "axes": result}


def make_sides(description: Mapping[str, Any]) -> dict[str, Side]:
    """Make a pass of the whole model for each point.

    Args:
        description: `variant` and `points`, each the fields of a `Point`.
    """
    models = Models(description["variant"])
    points = [Point(**fields) for fields in description["points"]]
    return {
        # Warmed up at its own size: what is made once there would bend the line, 10 MB of kernels
        # and tables beside 40 MB, and 170 MB of CLIP's weights packed at the fourth repeat.
        point.name: Side(run=partial(models.run, point), warm_up=partial(models.warm_up, point))
        for point in points
    }


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Slope of the straight line through the logarithms, by least squares."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def render(figures: Figures) -> str:
    """Make the table."""
    headers = ["grows", "number", "time", "extra memory", "slope of time", "slope of memory"]
    rows = []
    for name, axis in figures["axes"].items():
        slopes = [_slope_text(axis["slopes"][kind]) for kind in ("time", "memory")]
        for number, point in enumerate(axis["points"]):
            rows.append(
                [
                    *(name, f"{point['x']:,}", seconds_text(as_sample(point["seconds"]))),
                    memory_text(point["memory"]),
                    *(slopes if number == 0 else ["", ""]),
                ]
            )
    notes = (
        f"SAM {figures['variant']}, fp32. Slope: of the logarithm of the cost over that of the "
        "number. Extra memory: peak of a pass over a process that has done the same one before."
    )
    return f"{markdown_table(headers, rows)}\n\n{notes}"


def _measure_memory(
    variant: str, points: Sequence[Point], threads: int
) -> dict[str, dict[str, int] | None]:
    description = {"variant": variant, "points": [asdict(point) for point in points]}
    with processes.SessionProcess(
        __name__, description, threads=threads, environment=ENVIRONMENT
    ) as session:
        return {point.name: session.memory(point.name) for point in points}


def _memory_slope(xs: Sequence[float], rows: Sequence[Figures]) -> float | None:
    extra = [row["memory"]["extra"] for row in rows if row["memory"]]
    # Nothing was measured, or an image so small that its memory is lost in that of the process.
    if len(extra) < len(rows) or min(extra) == 0:
        return None
    return slope(xs, extra)


def _slope_text(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"
