"""Refusal of impossible config values, when the config is read and before anything is built."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode as CN

from schnet.errors import InputError

Check = tuple[Callable[[Any], bool], str]


def _one_of(*allowed: str) -> Check:
    return (lambda value: value in allowed), "one of " + ", ".join(allowed)


def _within(low: float, high: float, *, open_low: bool = False) -> Check:
    wanted = f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
    if math.isinf(high):
        wanted = f"a number {'above' if open_low else 'of at least'} {low:g}"

    def check(value: Any) -> bool:
        inside = low < value if open_low else low <= value
        return inside and value <= high and math.isfinite(value)

    return check, wanted


def _count(low: int) -> Check:
    return (lambda value: isinstance(value, int) and value >= low), f"a whole number >= {low}"


def _list_of(length: int, item: Check) -> Check:
    return (
        lambda value: len(value) == length and all(item[0](v) for v in value),
        f"a list of {length}, each {item[1]}",
    )


_MULTIPLE_OF_8: Check = (
    lambda value: isinstance(value, int) and value > 0 and value % 8 == 0,
    "a positive multiple of 8",
)
_MULTIPLE_OF_16: Check = (
    lambda value: isinstance(value, int) and value > 0 and value % 16 == 0,
    "a positive multiple of 16",
)
_PROBABILITY = _within(0, 1)
_POSITIVE = _within(0, math.inf, open_low=True)
_NUMBER = _within(-math.inf, math.inf)
_NOT_NEGATIVE = _within(0, math.inf)


def _is_template(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.format("part") != value
    except (IndexError, KeyError, ValueError):
        return False


def _not_blank(value: str) -> bool:
    return bool(value.strip())


CHECKS: dict[str, Check] = {
    "OUTPUT_DIR": (_not_blank, "a folder"),
    "MODEL.DEVICE": (
        lambda value: value.split(":")[0] in ("cpu", "cuda", "mps"),
        "cpu, mps or cuda, perhaps with a number: cuda:1",
    ),
    "MODEL.PIXEL_MEAN": _list_of(3, _NUMBER),
    "MODEL.PIXEL_STD": _list_of(3, _POSITIVE),
    "MODEL.BACKBONE.NAME": _one_of("SamBackbone", "ClipBackbone"),
    "MODEL.SAM.VARIANT": _one_of("vit_b", "vit_l", "vit_h", "tiny"),
    "MODEL.SAM.RECOMPUTED": _one_of("layer", "mlp"),
    "MODEL.SAM.WEIGHTS": (_not_blank, "a path, a URL, an official name or `random`"),
    "MODEL.SAM.LR_FACTOR": _POSITIVE,
    "MODEL.CLIP.VARIANT": _one_of(
        "RN50", "RN101", "RN50x4", "ViT-B/32", "ViT-B/16", "ViT-L/14", "tiny"
    ),
    "MODEL.CLIP.WEIGHTS": (_not_blank, "a path, a URL, an official name or `random`"),
    "MODEL.CLIP.INPUT_SCALE": _within(0, 4, open_low=True),
    "MODEL.CLIP.PROMPT_TEMPLATES": (
        lambda value: len(value) > 0 and all(map(_is_template, value)),
        "a list of sentences that each hold {}",
    ),
    "MODEL.FTM.NUM_TOKENS": _count(1),
    "MODEL.FTM.HIDDEN_DIM": _count(1),
    "MODEL.FTM.RHO_INIT": _NOT_NEGATIVE,
    "MODEL.SRM.CLIP_STAGES": _list_of(5, (lambda v: v in (1, 2, 3, 4), "1, 2, 3 or 4")),
    "MODEL.SRM.BOTTLENECK_RATIO": _within(0, 1, open_low=True),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": (
        lambda value: isinstance(value, int) and 2 <= value <= 255,
        "a whole number in [2, 255]",
    ),
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": (lambda value: value == 255, "255"),
    "MODEL.SEM_SEG_HEAD.FUSE_DIM": _MULTIPLE_OF_8,
    "MODEL.SEM_SEG_HEAD.FUSE_BLOCKS": _count(0),
    "MODEL.SEM_SEG_HEAD.STEM_DIMS": _list_of(3, _MULTIPLE_OF_8),
    "MODEL.SEM_SEG_HEAD.STEM_BLOCKS": _count(0),
    "MODEL.SEM_SEG_HEAD.CLASSIFIER": _one_of("linear", "text"),
    "MODEL.LOSS.CE_WEIGHT": _NOT_NEGATIVE,
    "MODEL.LOSS.LOVASZ_WEIGHT": _NOT_NEGATIVE,
    "MODEL.LOSS.CLASS_WEIGHTS": _one_of("none", "sqrt_inverse"),
    "MODEL.LOSS.CE_STRIDE": _count(1),
    "MODEL.LOSS.LOVASZ_STRIDE": _count(1),
    "INPUT.FORMAT": _one_of("RGB"),
    "DATASETS.CUSTOM.NAME": (
        lambda value: re.fullmatch(r"[A-Za-z0-9_-]+", value) is not None,
        "letters, digits, `_` and `-`",
    ),
    "DATASETS.CUSTOM.VAL_SHARE": (lambda value: 0 < value < 1, "a number in (0, 1)"),
    "INPUT.SIZE": _list_of(2, _MULTIPLE_OF_16),
    "INPUT.SIZE_TEST": _list_of(2, (lambda v: v == 0 or v >= 16, "0 or at least 16")),
    "INPUT.CROP": _one_of("random", "letterbox"),
    "INPUT.SCALE_RANGE": _list_of(2, _POSITIVE),
    "INPUT.ROTATION_PROB": _PROBABILITY,
    "INPUT.ROTATION_SIGMA": _within(0, 180),
    "INPUT.FLIP_PROB": _PROBABILITY,
    "INPUT.COLOR_JITTER.BRIGHTNESS": _PROBABILITY,
    "INPUT.COLOR_JITTER.CONTRAST": _PROBABILITY,
    "INPUT.COLOR_JITTER.SATURATION": _PROBABILITY,
    "INPUT.COLOR_JITTER.HUE": _within(0, 0.5),
    "SOLVER.BASE_LR": _POSITIVE,
    "SOLVER.MAX_ITER": _count(1),
    "SOLVER.IMS_PER_BATCH": _count(1),
    "SOLVER.REFERENCE_WORLD_SIZE": _count(0),
    "SOLVER.WEIGHT_DECAY": _NOT_NEGATIVE,
    "SOLVER.BETAS": _list_of(2, (lambda v: 0 <= v < 1, "in [0, 1)")),
    "SOLVER.WARMUP_FACTOR": _within(0, 1),
    "SOLVER.WARMUP_ITERS": _count(0),
    "SOLVER.POLY_POWER": _NOT_NEGATIVE,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": _one_of("full_model"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": _POSITIVE,
    "SOLVER.AMP.DTYPE": _one_of("auto", "bfloat16", "float16"),
    "SOLVER.ACCUMULATE_STEPS": _count(1),
    "SOLVER.MAX_BAD_STEPS": _count(0),
    "SOLVER.EMA.DECAY": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "SOLVER.CHECKPOINT_PERIOD": _count(1),
    "SOLVER.KEEP_CHECKPOINTS": _count(1),
    "TEST.EVAL_PERIOD": _count(0),
    "TEST.BEST_METRIC": (_not_blank, "the name of a metric, such as mIoU"),
    "TEST.BEST_MODE": _one_of("auto", "max", "min"),
    "TEST.EARLY_STOPPING.PATIENCE": _count(0),
    "TEST.EARLY_STOPPING.MIN_DELTA": _NOT_NEGATIVE,
    "TEST.LOSS_IMAGES": _count(-1),
    "TEST.SAMPLE_IMAGES": _count(0),
    "TEST.BATCH_SIZE": _count(1),
    "TEST.DTYPE": _one_of("float32", "bfloat16", "auto"),
    "TEST.PROTOCOL": _one_of("upsample_logits", "warp_labels"),
    "TEST.BOUNDARY_TOLERANCE": _count(0),
    "TEST.AUG.SCALES": (
        lambda value: len(value) > 0 and all(_POSITIVE[0](v) and v <= 4 for v in value),
        "a list of numbers in (0, 4]",
    ),
    "TEST.SLIDING_WINDOW.OVERLAP": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "DATALOADER.NUM_WORKERS": _count(0),
    "DATALOADER.MAX_BAD_IMAGES": _count(0),
    "WANDB.PROJECT": (_not_blank, "a name"),
}
"""What each key must be: a predicate and its wording, by key."""


def check_config(cfg: CN) -> None:
    """Refuse values that no run can use.

    Raises:
        InputError: names the first offending key, its value and what is allowed.
    """
    for key, (is_allowed, wanted) in CHECKS.items():
        value = _get(cfg, key.split("."))
        try:
            allowed = is_allowed(value)
        except TypeError:
            # A list of words where numbers belong, and the like.
            allowed = False
        if not allowed:
            raise InputError(f"config key {key} is {value!r}: it must be {wanted}")
    _check_combinations(cfg)


def _check_combinations(cfg: CN) -> None:
    if (0 in cfg.INPUT.SIZE_TEST) and any(cfg.INPUT.SIZE_TEST):
        raise InputError(
            f"config key INPUT.SIZE_TEST is {cfg.INPUT.SIZE_TEST}: give both sides, or [0, 0] for "
            "INPUT.SIZE"
        )
    low, high = cfg.INPUT.SCALE_RANGE
    if low > high:
        raise InputError(
            f"config key INPUT.SCALE_RANGE is {[low, high]}: the first must not exceed the second"
        )
    if cfg.MODEL.LOSS.CE_WEIGHT == 0 and cfg.MODEL.LOSS.LOVASZ_WEIGHT == 0:
        raise InputError(
            "config keys MODEL.LOSS.CE_WEIGHT and MODEL.LOSS.LOVASZ_WEIGHT are both 0: give at "
            "least one loss a weight"
        )
    if cfg.MODEL.WEIGHTS_IGNORE_CLASSIFIER and not cfg.MODEL.WEIGHTS:
        raise InputError(
            "config key MODEL.WEIGHTS_IGNORE_CLASSIFIER is True and MODEL.WEIGHTS is empty: give "
            "the weights to start from, or set it False"
        )
    if cfg.MODEL.BACKBONE.NAME == "ClipBackbone" and cfg.MODEL.SRM.ENABLED:
        raise InputError(
            "config key MODEL.SRM.ENABLED is True with MODEL.BACKBONE.NAME ClipBackbone: SRM "
            "strengthens SAM's maps, so set MODEL.SRM.ENABLED False or take SamBackbone"
        )
    if cfg.TEST.SLIDING_WINDOW.ENABLED and cfg.TEST.PROTOCOL == "warp_labels":
        raise InputError(
            "config key TEST.PROTOCOL is 'warp_labels' with TEST.SLIDING_WINDOW.ENABLED True: "
            "windows are not letterboxed, so take upsample_logits or set SLIDING_WINDOW off"
        )
    _check_features(cfg)
    if not cfg.DATASETS.TRAIN or not cfg.DATASETS.TEST:
        raise InputError("config keys DATASETS.TRAIN and DATASETS.TEST must each name a data set")


def _check_features(cfg: CN) -> None:
    """The head's maps must be the backbone's, in order; SRM needs all five of SAM's."""
    of_sam = cfg.MODEL.BACKBONE.NAME == "SamBackbone"
    offered = [f"stage{i}" for i in range(5)] if of_sam else [f"res{i}" for i in range(2, 6)]
    wanted = list(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES)
    in_order = [name for name in offered if name in wanted]
    if not wanted or wanted != in_order or (cfg.MODEL.SRM.ENABLED and wanted != offered):
        raise InputError(
            f"config key MODEL.SEM_SEG_HEAD.IN_FEATURES is {wanted}: {cfg.MODEL.BACKBONE.NAME} "
            f"offers {offered}; name some of them in that order, with MODEL.SRM.ENABLED all"
        )


def _get(cfg: CN, path: Sequence[str]) -> Any:
    node: Any = cfg
    for name in path:
        node = node[name]
    return node
