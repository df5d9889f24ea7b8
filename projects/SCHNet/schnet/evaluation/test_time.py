"""The model as it is tested: put together from the config's TEST section, and named in words."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from schnet.data.view_sizes import testing_box
from schnet.errors import InputError
from schnet.evaluation.autocast import Autocast, inference_dtype
from schnet.evaluation.label_model import LabelModel
from schnet.evaluation.letterbox import Letterbox
from schnet.evaluation.protocol import PROTOCOLS
from schnet.evaluation.sliding_window import SlidingWindow
from schnet.evaluation.tta import SegmentorWithTTA, mirrored_channels
from schnet.evaluation.warp_labels import WarpLabels
from schnet.evaluation.wrapper import ModelWrapper


def build_test_model(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Put around a model what TEST asks for; the model itself where it asks for nothing.

    From the inside out: the type that the model computes in; windows or the letterbox, which are
    about one view; the average over the views; and the way to the photo's size. The input comes
    from `schnet.data.mapper.TestMapper` of the same config.

    Args:
        cfg: TEST, the test box (INPUT), MODEL.PIXEL_MEAN and DEVICE, and, where views are
            mirrored, the metadata of DATASETS.TEST count.
        model: gives, for a list of dicts with `image` (3, h, w), `height` and `width`, dicts with
            `sem_seg` (K, height, width) logits; or maps of them, see
            `schnet.evaluation.wrapper.score_maps`.

    Returns:
        A module with the model's interface and training mode. Its results hold `sem_seg`
        (K, height, width), fp32, logits or probabilities, or, under TEST.PROTOCOL `warp_labels`,
        `labels` (height, width), uint8, on the CPU.

    Raises:
        InputError: mirroring is on, and the test sets' mirror pairs are unknown, differ or do not
            fit the number of labels.
    """
    test = cfg.TEST
    warps = test.PROTOCOL == "warp_labels"
    dtype = inference_dtype(cfg)
    if dtype is not None:
        model = Autocast(model, dtype)
    if test.SLIDING_WINDOW.ENABLED:
        model = SlidingWindow(model, testing_box(cfg), test.SLIDING_WINDOW.OVERLAP, test.BATCH_SIZE)
    if warps:
        red, green, blue = (round(value) for value in cfg.MODEL.PIXEL_MEAN)
        model = Letterbox(model, (red, green, blue))
    if test.AUG.ENABLED:
        model = SegmentorWithTTA(model, _mirrored_channels(cfg) if test.AUG.FLIP else None)
    return WarpLabels(model) if warps else model


def build_label_model(cfg: CfgNode, model: nn.Module) -> ModelWrapper:
    """Make of a model one that gives label maps, as TEST asks for them.

    Scores of a photo's size are never made, so that memory does not grow with K times the photo.

    Args:
        cfg: see `build_test_model`.
        model: likewise.

    Returns:
        A module with the model's interface and training mode. Its results hold `labels` (height,
        width), uint8, on the CPU: the argmax of what `build_test_model` gives.

    Raises:
        InputError: `build_test_model` refuses.
    """
    tested = build_test_model(cfg, model)
    return tested if isinstance(tested, WarpLabels) else LabelModel(tested)


def describe_protocol(cfg: CfgNode) -> str:
    """Say in one line how predictions are made, to be printed with every number.

    Args:
        cfg: TEST, the test box (INPUT) and MODEL.DEVICE count.

    Returns:
        Such as 'logits upsampled to the original size, then argmax; test box 512x512; scales
        0.75, 1, 1.25 with flip'. Sizes are height x width.
    """
    height, width = testing_box(cfg)
    orientation = "" if height == width else " (height x width)"
    parts = [PROTOCOLS[cfg.TEST.PROTOCOL], f"test box {height}x{width}{orientation}"]
    if cfg.TEST.AUG.ENABLED:
        scales = ", ".join(f"{scale:g}" for scale in cfg.TEST.AUG.SCALES)
        plural = "" if len(cfg.TEST.AUG.SCALES) == 1 else "s"
        parts.append(f"scale{plural} {scales} {'with' if cfg.TEST.AUG.FLIP else 'without'} flip")
    if cfg.TEST.SLIDING_WINDOW.ENABLED:
        overlap = 100 * cfg.TEST.SLIDING_WINDOW.OVERLAP
        parts.append(
            f"photos at their own resolution in windows of the test box, {overlap:g} % overlap "
            "or more"
        )
    if inference_dtype(cfg) is torch.bfloat16:
        parts.append("computed in bfloat16")
    return "; ".join(parts)


def _mirrored_channels(cfg: CfgNode) -> tuple[int, ...]:
    """Read what mirroring does to the labels of DATASETS.TEST, which one model serves."""
    known = {name: MetadataCatalog.get(name).get("mirror_pairs") for name in cfg.DATASETS.TEST}
    for name, pairs in known.items():
        if pairs is None:
            raise InputError(
                f"the data set {name} has no mirror_pairs, which TEST.AUG.FLIP needs to swap left "
                "and right: register it with them, or set TEST.AUG.FLIP False"
            )
    first, *others = known
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    channels = mirrored_channels(known[first], num_classes)
    for name in others:
        if mirrored_channels(known[name], num_classes) != channels:
            raise InputError(
                f"the data sets {first} and {name} of DATASETS.TEST differ in what is left and "
                "right: evaluate them one by one"
            )
    return channels
