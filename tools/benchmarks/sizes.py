"""What the encoder costs at different sizes of the image, on the plain and on the fast layers.

Sides that are multiples of 224 fill SAM's windows of 14 x 14 tokens; at other sizes the plain
layers compute padding. Photos of people are upright: a size costs by its pixels, and is worth what
it shows of them.
"""

from __future__ import annotations

from functools import partial

from benchmarks.comparison import Comparison
from benchmarks.encoders import build_ours, build_reference, encode, random_images
from benchmarks.options import Settings, Shape
from benchmarks.results import Figures, as_sample, markdown_table, seconds_text
from benchmarks.runner import interleave

from schnet.modeling.sam_encoder import PATCH_SIZE, SAM_VARIANTS, SamVariant

SIZES = ("512", "448", "672x448", "672")
SIDES = {"plain, fp32": (False, "fp32"), "fast, fp32": (True, "fp32"), "fast, bf16": (True, "bf16")}
_MEGAPIXEL = 1e6


def measure(settings: Settings) -> Figures:
    """Measure all sizes of a variant in the same rounds.

    Returns:
        `cells`: one dict a variant and size, with times by side.
    """
    cells = []
    for name in settings.variants:
        variant = SAM_VARIANTS[name]
        reference = build_reference(variant)
        encoders = {fast: build_ours(reference, variant, fast=fast) for fast in (False, True)}
        del reference
        work = {
            f"{shape}/{side}": partial(encode, encoders[fast], random_images(shape), dtype)
            for shape in settings.shapes
            for side, (fast, dtype) in SIDES.items()
        }
        samples = interleave(work, settings.rounds, title=f"{name} at all sizes")
        for shape in settings.shapes:
            seconds = {side: samples[f"{shape}/{side}"].seconds for side in SIDES}
            cells.append(
                {
                    "variant": name,
                    "shape": str(shape),
                    "padding": padded_share(variant, shape),
                    "seconds": seconds,
                }
            )
    return {"cells": cells}


def padded_share(variant: SamVariant, shape: Shape) -> float:
    """Padded tokens of the windows for one real token."""
    height, width = shape.height // PATCH_SIZE, shape.width // PATCH_SIZE
    window = variant.window_size
    padded = (height + -height % window) * (width + -width % window)
    return padded / (height * width) - 1


def render(figures: Figures) -> str:
    """Make the table."""
    cells = figures["cells"]
    headers = ["encoder", "side", "size", "megapixels", "padded tokens", "time of an image"]
    headers += ["of a megapixel", "relative to the first size"]
    first: dict[str, Figures] = {}
    for cell in cells:
        first.setdefault(cell["variant"], cell)
    rows = [_row(cell, first[cell["variant"]], side) for side in SIDES for cell in cells]
    notes = "Relative: time of an image, to that of the first size with the same encoder and side."
    return f"{markdown_table(headers, rows, left=3)}\n\n{notes}"


def _row(cell: Figures, first: Figures, side: str) -> list[str]:
    shape, first_shape = Shape.parse(cell["shape"]), Shape.parse(first["shape"])
    sample = as_sample([seconds / shape.batch for seconds in cell["seconds"][side]])
    unit = as_sample(first["seconds"][side]).median / first_shape.batch
    return [
        *(cell["variant"], side, cell["shape"], f"{shape.pixels / _MEGAPIXEL:.3f}"),
        f"{100 * cell['padding']:.0f} %",
        seconds_text(sample),
        f"{sample.median / shape.pixels * _MEGAPIXEL:.2f} s",
        f"{sample.median / unit:.2f}",
    ]


COMPARISON = Comparison("sizes", ("vit_b",), SIZES, measure, render)
add_arguments, run = COMPARISON.add_arguments, COMPARISON.run
