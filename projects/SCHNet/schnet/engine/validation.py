"""The validation loss: the training loss on test images, without augmentation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from torch import nn

from schnet.data.augmentation import RandomCrop
from schnet.data.catalog import load_registered
from schnet.data.color import ColorJitter
from schnet.data.loader import Batch, DatasetDict, build_labelled_loader
from schnet.data.mapper import TrainMapper
from schnet.engine.hooks import Results
from schnet.engine.modes import evaluation_mode
from schnet.errors import InputError
from schnet.evaluation.watched_metric import LOSS_TASK
from schnet.visualization import evenly_spaced

logger = logging.getLogger(__name__)


class ValidationMapper:
    """Maps an image as training does, but for its randomness: fitted, in the crop's middle."""

    def __init__(self, mapper: TrainMapper) -> None:
        """Take a mapper that has nothing to draw."""
        self._mapper = mapper

    def __call__(self, dataset_dict: DatasetDict) -> DatasetDict:
        """Map one image; raises as `TrainMapper` does."""
        # The draws have no effect; they come from a generator of their own.
        return self._mapper(dataset_dict, np.random.default_rng(0))


def build_validation_mapper(cfg: CfgNode, dataset_name: str) -> ValidationMapper:
    """Make the mapper of a test set's images for the training loss.

    Args:
        cfg: INPUT.SIZE and MODEL.PIXEL_MEAN count.
        dataset_name: registered; its labels are counted.
    """
    metadata = MetadataCatalog.get(dataset_name)
    height, width = cfg.INPUT.SIZE
    red, green, blue = (round(value) for value in cfg.MODEL.PIXEL_MEAN)
    mapper = TrainMapper(
        crop=RandomCrop((height, width), (1.0, 1.0), 0.0, letterbox=True),
        jitter=ColorJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0),
        mirror_pairs=(),
        num_classes=len(metadata.stuff_classes),
        ignore_label=metadata.ignore_label,
        pad_color=(red, green, blue),
        refuse_colors=metadata.get("refuse_colors", False),
    )
    return ValidationMapper(mapper)


def require_losses(cfg: CfgNode, model: nn.Module) -> None:
    """Refuse a validation loss of an architecture that cannot compute it.

    Raises:
        InputError: TEST.LOSS_IMAGES is not 0 and the model has no method `losses`.
    """
    if cfg.TEST.LOSS_IMAGES != 0 and not hasattr(model, "losses"):
        raise InputError(
            f"config key TEST.LOSS_IMAGES is {cfg.TEST.LOSS_IMAGES}, and the architecture "
            f"{cfg.MODEL.META_ARCHITECTURE} has no method `losses` that works in evaluation mode: "
            "set TEST.LOSS_IMAGES 0"
        )


def add_validation_losses(
    cfg: CfgNode, model: nn.Module, autocast_dtype: torch.dtype | None, results: Results
) -> Results:
    """Add the validation loss of every labelled test set to the results of its evaluation.

    Args:
        cfg: TEST.LOSS_IMAGES, DATASETS.TEST, and what `validation_losses` reads.
        model: the model itself, in any mode; see `validation_losses`.
        autocast_dtype: as in the evaluation; None keeps the weights' type.
        results: by task, or by data set first where there are several.

    Returns:
        On the main process the results with a task `val` beside the metrics: `loss`, and the
        losses that it is the sum of, by their names. On the others the results as they are.
    """
    if cfg.TEST.LOSS_IMAGES == 0:
        return results
    extended = dict(results)
    for name in cfg.DATASETS.TEST:
        losses = validation_losses(cfg, model, name, autocast_dtype)
        if losses and len(cfg.DATASETS.TEST) == 1:
            extended[LOSS_TASK] = losses
        elif losses:
            extended[name] = {**extended.get(name, {}), LOSS_TASK: losses}
    return extended


def validation_losses(
    cfg: CfgNode, model: nn.Module, dataset_name: str, autocast_dtype: torch.dtype | None
) -> dict[str, float]:
    """Compute the mean training loss over test images; every process must call it.

    The images are TEST.LOSS_IMAGES of the labelled ones, spread evenly over the set and divided
    among the processes. Each goes through the model as in training, at INPUT.SIZE, fitted and
    padded; nothing is random. Each image counts the same, so that neither the number of processes
    nor the size of a batch changes the mean, but for rounding. No generator of random numbers is
    used, and every module's mode is afterwards what it was.

    Args:
        cfg: TEST.LOSS_IMAGES, INPUT.SIZE, DATALOADER and SOLVER's batch size count.
        model: has `losses(batch)`, the losses' means over a batch by name, in any mode.
        dataset_name: registered.
        autocast_dtype: as in the evaluation; None keeps the weights' type.

    Returns:
        On the main process `loss`, the sum, and the losses by name; nothing on the others, or
        where no image has a label map.

    Raises:
        InputError: an image or a label map cannot be used.
    """
    start = time.perf_counter()
    dicts = [d for d in load_registered([dataset_name]) if d.get("sem_seg_file_name")]
    if not dicts:
        return {}
    wanted = len(dicts) if cfg.TEST.LOSS_IMAGES < 0 else cfg.TEST.LOSS_IMAGES
    chosen = [dicts[index] for index in evenly_spaced(len(dicts), wanted)]
    # As many images as a process trains on at once fit into its memory without gradients too.
    parts = comm.get_world_size() * cfg.SOLVER.ACCUMULATE_STEPS
    batch_size = max(1, cfg.SOLVER.IMS_PER_BATCH // parts)
    loader = build_labelled_loader(
        cfg, chosen, build_validation_mapper(cfg, dataset_name), batch_size
    )
    device_type = next(model.parameters()).device.type
    with (
        evaluation_mode(model),
        torch.no_grad(),
        torch.autocast(device_type, dtype=autocast_dtype, enabled=autocast_dtype is not None),
    ):
        own = _add_up(model, loader)
    # Sums and not means: a process's share may be empty. Gathered on the CPU, in one go.
    sums = comm.gather(own)
    if not comm.is_main_process():
        return {}
    means = _means(sums, len(chosen))
    logger.info(
        "validation loss of %d images of %s: %s (%.1f s)",
        len(chosen),
        dataset_name,
        ", ".join(f"{name} {value:.4f}" for name, value in means.items()),
        time.perf_counter() - start,
    )
    return means


def _add_up(model: Any, batches: Iterable[Batch]) -> dict[str, float]:
    """Add up the losses of all images of some batches."""
    sums: dict[str, float] = {}
    for batch in batches:
        for name, mean in model.losses(batch).items():
            sums[name] = sums.get(name, 0.0) + float(mean) * len(batch)
    return sums


def _means(sums: Sequence[dict[str, float]], images: int) -> dict[str, float]:
    """Divide the processes' sums by all images; the sum of the losses comes first."""
    names = list(dict.fromkeys(name for own in sums for name in own))
    means = {name: sum(own.get(name, 0.0) for own in sums) / images for name in names}
    return {"loss": sum(means.values()), **means}
