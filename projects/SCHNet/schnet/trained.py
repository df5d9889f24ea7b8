"""From a run's folder, a checkpoint or an export to the config that photos are parsed with."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from schnet.checkpoint_files import find_checkpoints, newest_whole
from schnet.config import override
from schnet.data.labels import Color
from schnet.errors import InputError
from schnet.export_file import ENDING, is_export
from schnet.exported import exported_config
from schnet.run_config import config_beside
from schnet.setup import load_model_config

logger = logging.getLogger(__name__)

BEST_FILE = "model_best.pth"
AUTO = "auto"
DTYPES = (AUTO, "float32", "bfloat16")


def trained_config(
    weights: str | os.PathLike[str],
    device: str = AUTO,
    dtype: str = AUTO,
    *,
    config_files: Sequence[str | os.PathLike[str]] = (),
    opts: Sequence[str] = (),
    clip_weights: str | os.PathLike[str] | None = None,
) -> CfgNode:
    """The config of a trained model, to parse photos with.

    Args:
        weights: a run's folder, a checkpoint or an export; see `schnet.inference.Parser.load`.
        device: `auto` or a name of torch.
        dtype: one of `DTYPES`.
        config_files: in place of the `config.yaml` beside a checkpoint; later ones on top.
        opts: overrides, alternating keys and values.
        clip_weights: MODEL.CLIP.WEIGHTS, where CLIP's file lies elsewhere than in training; None
            takes the config's.

    Returns:
        A checked config, frozen; its data sets are registered.

    Raises:
        InputError: a file is missing or cannot be used, or the device is not there.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}: give one of {', '.join(DTYPES)}")
    file = find_weights(weights)
    own = ["MODEL.WEIGHTS", file, "MODEL.DEVICE", choose_device(device), "TEST.DTYPE", dtype]
    if clip_weights is not None:
        own += ["MODEL.CLIP.WEIGHTS", os.fspath(clip_weights)]
    if not is_export(file):
        files = list(config_files) or [config_beside(Path(file))]
        return load_model_config(files, [*own, *opts])
    if config_files:
        raise InputError(f"{file} is an export, which has its own config: leave --config-file out")
    return override(exported_config(file), [*own[2:], *opts])


def label_settings(cfg: CfgNode) -> list[str]:
    """What label maps depend on besides the file of weights: settings and labels, as text.

    What device runs the weights is no part of it, nor is where they lie: a checkpoint knows its
    frozen bases by their fingerprints.
    """
    labels = label_list(cfg)
    # As the model is built: CLIP is asked by the names of what was trained on.
    prompts = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("prompts", None)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = cfg.MODEL.SAM.WEIGHTS = cfg.MODEL.CLIP.WEIGHTS = cfg.MODEL.DEVICE = ""
    sections = [cfg.MODEL.dump(), cfg.INPUT.dump(), cfg.TEST.dump()]
    return [*sections, json.dumps([*labels, prompts])]


def label_list(cfg: CfgNode) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Names and colours (r, g, b) of the labels that a config parses into, in label order."""
    labels = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    palette = tuple((int(r), int(g), int(b)) for r, g, b in labels.stuff_colors)
    return tuple(labels.stuff_classes), palette


def find_weights(weights: str | os.PathLike[str]) -> str:
    """Find the file of weights that is meant.

    Args:
        weights: a file, or a folder: of a run, whose `model_best.pth` is taken, else its newest
            checkpoint that is whole; or else with one export.

    Raises:
        InputError: there is no such file, or a folder holds none, damaged ones alone, or several
            exports.
    """
    path = Path(weights)
    if not path.is_dir():
        if not path.is_file() and "://" not in str(weights):
            raise InputError(
                f"there is no file or folder {path}: give a run's output folder, a checkpoint or a "
                f"{ENDING} file"
            )
        return str(weights)
    if (path / BEST_FILE).is_file():
        return str(path / BEST_FILE)
    newest = _newest_of_run(path)
    if newest is not None:
        return str(newest)
    exports = sorted(path.glob(f"*{ENDING}"))
    if len(exports) == 1:
        return str(exports[0])
    others = find_checkpoints(path)
    if exports:
        found = f"several exports ({_names(exports)})"
    elif others:
        found = f"no run's checkpoint and no export, but {_names(others)}"
    else:
        found = "no model"
    raise InputError(f"the folder {path} holds {found}: give the path of one file of weights")


def _newest_of_run(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; None where the folder is no run's."""
    newest, damaged = newest_whole(folder, "weights")
    if newest is not None:
        for fault in damaged.values():
            logger.warning("%s; %s is taken instead", fault, newest)
    elif damaged:
        raise InputError(
            f"the folder {folder} holds no checkpoint that is not damaged "
            f"({_names(damaged)}): restore one of them, or give the path of another file of weights"
        )
    return newest


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)


def choose_device(name: str = AUTO) -> str:
    """Choose the device: what is asked for, or the fastest there is.

    Under torchrun (LOCAL_RANK) `auto` and `cuda` are each process's own GPU.

    Raises:
        InputError: it is not there, or is no device's name.
    """
    if name == AUTO:
        if torch.cuda.is_available():
            return _own_gpu()
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    is_numbered = kind == "cuda" and index.isdecimal()
    if kind not in there or (name != kind and not is_numbered):
        raise InputError(f"the device is {name!r}: give {AUTO}, {', '.join(there)} or cuda:1")
    if not there[kind] or (is_numbered and int(index) >= torch.cuda.device_count()):
        raise InputError(f"the device is {name!r}, which this machine has not: give {AUTO} or cpu")
    return _own_gpu() if name == "cuda" else name


def _own_gpu() -> str:
    """One of several processes on a machine, as torchrun starts them, takes a GPU of its own."""
    local_rank, there = os.environ.get("LOCAL_RANK", ""), torch.cuda.device_count()
    return f"cuda:{int(local_rank) % there}" if local_rank.isdecimal() and there > 1 else "cuda"
