"""Trained models as they are used: from a checkpoint and its bases, or from an export alone."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

import schnet.modeling  # noqa: F401  registers the architectures
from schnet.checkpoint import load_model_weights
from schnet.config import add_schnet_config
from schnet.config_checks import check_config
from schnet.errors import InputError
from schnet.export_file import ExportHeader, read_export, read_export_header
from schnet.model_state import require_fit
from schnet.weight_files import locate_weights

logger = logging.getLogger(__name__)


def load_exported(path: str) -> tuple[CfgNode, nn.Module]:
    """Build the model of an export; no other file is read, and nothing of the network.

    Args:
        path: path or URL of a file that `tools/export_weights.py` wrote.

    Returns:
        The config, see `exported_config`, and the model in evaluation mode.

    Raises:
        InputError: the file is missing, is no export, or cannot be used.
    """
    cfg = exported_config(path)
    return cfg, build_trained_model(cfg).eval()


def exported_config(path: str) -> CfgNode:
    """The config to parse with, by an export's header.

    It is the one that the model was trained with, but for these: MODEL.WEIGHTS is the export,
    MODEL.DEVICE the CPU where there is no GPU, and DATASETS names one data set without files,
    whose metadata are the export's label list.

    Raises:
        InputError: the file is missing, is no export, or its config is not this version's.
    """
    file = locate_weights(path, "load_exported")
    header = read_export_header(file)
    if header is None:
        raise InputError(
            f"{path} is no file that tools/export_weights.py wrote: give one, or load a checkpoint "
            "with its config"
        )
    cfg = get_cfg()
    add_schnet_config(cfg)
    try:
        # Not by Detectron2's reader, which runs what a YAML file asks it to.
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(header.config)))
    except (
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        yaml.YAMLError,
    ) as error:
        raise InputError(
            f"the config in {path} cannot be used ({' '.join(str(error).split())}): it was written "
            f"by schnet {header.schnet_version}; export the checkpoint again with this version"
        ) from error
    name = _register_labels(header)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (name,)
    cfg.DATASETS.CUSTOM.CLASSES = ""
    cfg.MODEL.WEIGHTS = path
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    check_config(cfg)
    cfg.freeze()
    return cfg


def _register_labels(header: ExportHeader) -> str:
    """Make an export's label list the metadata of a data set; its name."""
    labels = {
        "stuff_classes": list(header.classes),
        "stuff_colors": [list(color) for color in header.palette],
        "mirror_pairs": list(header.mirror_pairs),
        "prompts": [list(phrases) for phrases in header.prompts],
        "ignore_label": header.ignore_label,
    }
    digest = hashlib.sha256(json.dumps(labels).encode()).hexdigest()
    # One name a label list: Detectron2 refuses other values under a name that it knows.
    name = f"exported_{digest[:12]}"
    if name not in MetadataCatalog.list():
        MetadataCatalog.get(name).set(**labels, evaluator_type="parsing", labels_from=name)
    return name


def build_trained_model(
    cfg: CfgNode, build: Callable[[CfgNode], nn.Module] = build_model
) -> nn.Module:
    """Build the model of a config with MODEL.WEIGHTS.

    Where these are an export, MODEL.SAM.WEIGHTS and MODEL.CLIP.WEIGHTS are not read: the bases, and
    CLIP's features of the label list, come from the export.

    Args:
        cfg: a checked config, its data sets registered.
        build: builds the model of a config.

    Raises:
        InputError: the weights cannot be read, do not fit the model, or are an export of other
            labels than those of DATASETS.TRAIN.
    """
    path = locate_weights(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS")
    header = read_export_header(path)
    if header is None:
        model = build(cfg)
        load_model_weights(model, cfg.MODEL.WEIGHTS)
        return model
    _require_labels(cfg, header)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.SAM.WEIGHTS = cfg.MODEL.CLIP.WEIGHTS = "random"
    cfg.freeze()
    model = build(cfg)
    _load_export(model, path, header, f"MODEL.WEIGHTS names {cfg.MODEL.WEIGHTS}")
    return model


def _require_labels(cfg: CfgNode, header: ExportHeader) -> None:
    name, weights = cfg.DATASETS.TRAIN[0], cfg.MODEL.WEIGHTS
    metadata = MetadataCatalog.get(name)
    if tuple(metadata.stuff_classes) != header.classes:
        raise InputError(
            f"MODEL.WEIGHTS names {weights}, which was exported for the labels "
            f"{', '.join(header.classes)}, and DATASETS.TRAIN names {name}, which has "
            f"{', '.join(metadata.stuff_classes)}: take a data set of its labels"
        )
    if header.derived and tuple(map(tuple, metadata.prompts)) != header.prompts:
        logger.warning(
            "%s holds CLIP's features of other phrases than %s has: the former are taken",
            weights,
            name,
        )


def _load_export(model: nn.Module, path: str, header: ExportHeader, told: str) -> None:
    """Put all that an export holds into a model with random bases."""
    tensors = read_export(path, header, "MODEL.WEIGHTS")
    buffers = dict(model.named_buffers())
    derived = {
        f"{prefix}.{name}": buffers[f"{prefix}.{name}"]
        for prefix, module in model.named_modules()
        for name in getattr(module, "derived", ())
    }
    require_fit({**model.state_dict(), **derived}, tensors, told)
    for name, buffer in derived.items():
        buffer.copy_(tensors.pop(name))
    model.load_state_dict(tensors, strict=True)
    if header.dtype != "float32":  # rounded, the bases are no file's
        return
    for prefix, source in header.bases.items():
        model.get_submodule(prefix.rstrip(".")).source = source  # type: ignore[assignment]
