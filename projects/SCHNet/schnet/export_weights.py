"""From a checkpoint to one file for deployment, and from that back to a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from torch import nn
from tqdm import tqdm

import schnet.modeling  # noqa: F401  registers the architectures
from schnet.checkpoint import read_stored_weights, write_checkpoint
from schnet.config import load_config
from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.export_file import (
    ENDING,
    ExportHeader,
    read_export,
    read_export_header,
    write_export,
)
from schnet.model_state import StoredWeights, fit_weights, stored_state
from schnet.run_config import CONFIG_FILE, config_beside
from schnet.setup import load_model_config
from schnet.versions import version_of

DTYPES = ("float32", "float16", "bfloat16")
CHECKPOINT_FILE = "model_exported.pth"
_GIVEN = "the command line"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        tensors: number of tensors in it.
        size: of the file, in bytes.
        source_size: of the file that it was made from, in bytes.
        header: what the export says of the model.
    """

    path: Path
    tensors: int
    size: int
    source_size: int
    header: ExportHeader


def export_checkpoint(
    weights: Path,
    output: Path,
    *,
    config_files: Sequence[Path] = (),
    opts: Sequence[str] = (),
    dtype: str = "float32",
    evaluation: Path | None = None,
) -> Exported:
    """Write a trained model as one file: its weights, the frozen bases, CLIP's text features.

    The bases are read from the config's MODEL.SAM.WEIGHTS and MODEL.CLIP.WEIGHTS once more.

    Args:
        weights: a checkpoint of a run, or a state dict of the whole model.
        output: the file, ending in `.safetensors`; it must not exist.
        config_files: configs, later ones on top; none takes `config.yaml` beside the checkpoint.
        opts: overrides, alternating keys and values.
        dtype: floating type of the stored weights, one of `DTYPES`; text features stay fp32.
        evaluation: an `evaluation.json` of these weights, to go into the header.

    Raises:
        InputError: a file or the config cannot be used, the output exists or cannot be written, or
            a weight is too large for the type.
    """
    _require_new(output, ENDING)
    if not weights.is_file():
        raise InputError(f"there is no file {weights}: give the path of a checkpoint")
    if read_export_header(weights) is not None:
        raise InputError(f"{weights} is an export already: give the checkpoint of a run")
    numbers = {} if evaluation is None else _read_evaluation(evaluation)
    files = list(config_files) or [config_beside(weights)]
    cfg = load_model_config(files, [*opts, "MODEL.DEVICE", "cpu"])
    stored = read_stored_weights(str(weights), _GIVEN)
    model = build_model(cfg)
    fit_weights(model, stored).apply(model)
    tensors = {
        name: _as_stored(name, tensor, getattr(torch, dtype))
        for name, tensor in tqdm(model.state_dict().items(), desc="tensors", unit="")
    }
    derived = dict(_derived_tensors(model))
    # As it was read: on the machine that trains again there may be a GPU.
    config = load_config(files, opts).dump()
    header = _header_of(cfg, config, model, stored, dtype, tuple(derived), numbers)
    write_export(output, {**tensors, **derived}, header)
    return _summary(output, weights, len(tensors) + len(derived), header)


def export_to_checkpoint(export: Path, folder: Path) -> Exported:
    """Turn an export into a checkpoint to train from or to evaluate, and its config.

    `model_exported.pth` holds what the run's own checkpoint did: the frozen bases that came from
    files are left out, and come from these files again. `config.yaml` is the run's.

    Args:
        export: a file of `export_checkpoint`.
        folder: where both files go; neither may exist.

    Raises:
        InputError: the file is no export, or the others exist or cannot be written.
    """
    target, config = folder / CHECKPOINT_FILE, folder / CONFIG_FILE
    for path in (target, config):
        _require_new(path, path.suffix)
    if not export.is_file():
        raise InputError(f"there is no file {export}: give the path of an export")
    header = read_export_header(export)
    if header is None:
        raise InputError(f"{export} is no export: give a file that this command wrote")
    left_out = tuple(header.bases)
    state = {
        name: tensor
        for name, tensor in read_export(export, header, _GIVEN).items()
        if name not in header.derived and not (left_out and name.startswith(left_out))
    }
    entries: dict[str, Any] = {"best": dict(header.best)}
    if header.iteration is not None:
        entries["iteration"] = header.iteration
    write_checkpoint(target, state, header.bases, **entries)
    with atomic_path(config) as temporary:
        temporary.write_text(header.config, encoding="utf-8")
    return _summary(target, export, len(state), header)


def _require_new(path: Path, ending: str) -> None:
    if path.suffix != ending:
        raise InputError(f"the output is {path}: end its name in {ending}")
    if path.exists():
        raise InputError(f"{path} exists: give another name, or move it away")


def _read_evaluation(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the evaluation {path} cannot be read ({' '.join(str(error).split())}): give an "
            "evaluation.json"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"the evaluation {path} holds no metrics: give an evaluation.json")
    return content


def _as_stored(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor.contiguous()
    stored = tensor.to(dtype).contiguous()
    if bool((stored.isinf() & tensor.isfinite()).any()):
        raise InputError(
            f"{name} holds values up to {float(tensor.abs().max()):g}, too large for {dtype}: "
            "give --dtype bfloat16 or float32"
        )
    return stored


def _derived_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What follows from CLIP's file and cannot be made without its text tower."""
    for prefix, module in model.named_modules():
        for name in getattr(module, "derived", ()):
            yield f"{prefix}.{name}", module.get_buffer(name).contiguous()


def _header_of(
    cfg: CfgNode,
    config: str,
    model: nn.Module,
    stored: StoredWeights,
    dtype: str,
    derived: tuple[str, ...],
    evaluation: Mapping[str, Any],
) -> ExportHeader:
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    return ExportHeader(
        config=config,
        classes=tuple(metadata.stuff_classes),
        palette=tuple((r, g, b) for r, g, b in metadata.stuff_colors),
        mirror_pairs=tuple((left, right) for left, right in metadata.mirror_pairs),
        prompts=tuple(tuple(phrases) for phrases in metadata.prompts),
        ignore_label=metadata.ignore_label,
        dtype=dtype,
        bases=stored_state(model)[1],
        derived=derived,
        iteration=stored.iteration,
        best=stored.best,
        evaluation=evaluation,
        schnet_version=version_of("schnet"),
    )


def _summary(path: Path, source: Path, tensors: int, header: ExportHeader) -> Exported:
    return Exported(path, tensors, os.path.getsize(path), os.path.getsize(source), header)
