"""The whole model in inference against the fast encoder alone, and what each part takes.

A pass is photos in, label maps out: SAM with FTM, CLIP at half scale, SRM, head, upsampling to the
photo's size and argmax. Parts are timed within whole passes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.comparison import Comparison
from benchmarks.encoders import DTYPES, autocast, encode, random_images
from benchmarks.models import (
    PARTS,
    PartClock,
    build_schnet,
    median_shares,
    parse,
    random_photos,
)
from benchmarks.options import Settings, Shape
from benchmarks.results import (
    Figures,
    as_sample,
    markdown_table,
    ratio_text,
    seconds_text,
    target_text,
)
from benchmarks.runner import compare, interleave

from schnet.modeling.meta_arch import SCHNet
from schnet.modeling.sam import SamBackbone
from schnet.modeling.sam_encoder import SAM_VARIANTS

ENCODER, WHOLE = "encoder alone", "whole model"
TARGETS = {"vit_b": 1.5, "vit_l": 1.25}
LATE_PARTS, LATE_TARGET = PARTS[-2:], 15
# Sides of CLIP's input: relative to the image's, and CLIP's own.
CLIP_SCALES, CLIP_SIDE = (1.0, 0.5), 224


def measure(settings: Settings) -> Figures:
    """Measure every size of every variant.

    Returns:
        `cells`: one dict a variant, size and type, with times and shares of the parts; `clip`: one
        a size, with times by input and type.
    """
    cells, clip = [], []
    for variant in settings.variants:
        model = build_schnet(variant)
        for shape in settings.shapes:
            cells += [_measure_cell(model, variant, shape, dtype, settings) for dtype in DTYPES]
            if variant == settings.variants[0]:  # CLIP does not depend on SAM's size
                clip.append(_measure_clip(model, shape, settings.rounds))
    return {"cells": cells, "clip": clip}


def render(figures: Figures) -> str:
    """Make the tables."""
    headers = ["encoder", "size", "type", ENCODER, WHOLE, "relative", "target", *PARTS]
    headers += ["head to argmax", "target"]
    rows = [_row(cell) for cell in figures["cells"]]
    clip_headers = ["CLIP's input", "image", "type", "time"]
    clip_rows = [
        [name, clip["shape"], dtype, seconds_text(as_sample(seconds))]
        for clip in figures["clip"]
        for name, by_type in clip["seconds"].items()
        for dtype, seconds in by_type.items()
    ]
    notes = "Shares of a whole pass, timed within it; the encoder alone has no adapters."
    return "\n\n".join(
        [
            markdown_table(headers, rows, left=3),
            notes,
            markdown_table(clip_headers, clip_rows, left=3),
        ]
    )


def _measure_cell(
    model: SCHNet, variant: str, shape: Shape, dtype: str, settings: Settings
) -> Figures:
    backbone: Any = model.backbone
    alone = SamBackbone(encoder=backbone.encoder, ftm=None, variant=SAM_VARIANTS[variant]).eval()
    photos, passes = random_photos(shape), []
    with PartClock(model) as clock:

        def whole() -> None:
            with clock.one_pass() as seconds:
                parse(model, photos, dtype)
            passes.append(seconds)

        encoder = partial(encode, alone, random_images(shape), dtype)
        sides: dict[str, Callable[[], object]] = {ENCODER: encoder, WHOLE: whole}
        samples = interleave(sides, settings.rounds, title=f"{variant} at {shape}, {dtype}")
    return {
        "variant": variant,
        "shape": str(shape),
        "dtype": dtype,
        "seconds": {side: sample.seconds for side, sample in samples.items()},
        "shares": median_shares(passes[1:]),  # the first is the warm-up
    }


def _measure_clip(model: SCHNet, shape: Shape, rounds: int) -> Figures:
    clip = model.clip
    assert clip is not None, "a model with all parts"
    images = torch.stack([photo["image"] for photo in random_photos(shape)]).float()
    scales = {f"{scale:g} x the image's": scale for scale in CLIP_SCALES}
    scales[f"{CLIP_SIDE} squared"] = CLIP_SIDE / max(shape.height, shape.width)

    @torch.inference_mode()
    def see(scale: float, dtype: str) -> None:
        clip.input_scale = scale
        with autocast(dtype):
            clip(images)

    keys = {(name, dtype): scale for name, scale in scales.items() for dtype in DTYPES}
    before = clip.input_scale
    sides = {f"{n}/{dtype}": partial(see, scale, dtype) for (n, dtype), scale in keys.items()}
    samples = interleave(sides, rounds, title=f"CLIP at {shape}")
    clip.input_scale = before
    seconds: dict[str, dict[str, Any]] = {name: {} for name in scales}
    for name, dtype in keys:
        seconds[name][dtype] = samples[f"{name}/{dtype}"].seconds
    return {"shape": str(shape), "seconds": seconds}


def _row(cell: Figures) -> list[str]:
    alone, whole = (as_sample(cell["seconds"][side]) for side in (ENCODER, WHOLE))
    relative, shares = compare(whole, alone), cell["shares"]
    late = 100 * sum(shares[part] for part in LATE_PARTS)
    target = TARGETS.get(cell["variant"])
    return [
        *(cell["variant"], cell["shape"], cell["dtype"]),
        *(seconds_text(alone), seconds_text(whole), ratio_text(relative)),
        target_text(relative.value, most=target),
        *(f"{100 * shares[part]:.1f} %" for part in PARTS),
        f"{late:.1f} %",
        target_text(late, most=LATE_TARGET if target else None, unit=" %"),
    ]


COMPARISON = Comparison("parts", ("vit_b", "vit_l"), ("512",), measure, render)
add_arguments, run = COMPARISON.add_arguments, COMPARISON.run
