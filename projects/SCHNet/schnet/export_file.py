"""The file of a whole model for deployment: safetensors, and what to know of it in the header."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from schnet.checkpoint_files import whole_file
from schnet.errors import InputError
from schnet.fingerprints import BaseSource
from schnet.weight_files import locate_weights, read_state_dict

ENDING = ".safetensors"
_FORMAT_NAME, _VERSION = "schnet-export", 1
EXPORT_FORMAT = f"{_FORMAT_NAME}/{_VERSION}"
_FORMAT = re.compile(rf"{_FORMAT_NAME}/(\d+)")


@dataclass(frozen=True)
class ExportHeader:
    """What an export says besides its weights; each attribute is an entry of the file's metadata.

    Attributes:
        config: the config that the model was trained with, as YAML.
        classes: names in label order.
        palette: one (red, green, blue) in 0..255 a class.
        mirror_pairs: label values that change places when an image is mirrored.
        prompts: the phrases of each class that CLIP was given.
        ignore_label: label value of pixels without a label.
        dtype: floating type that the weights are stored in, such as `float16`.
        bases: the files that the frozen bases came from, by the prefix of their names.
        derived: names of tensors that are no part of the model's state dict: its text features.
        iteration: the last one of the training, or None where it is not known.
        best: the metric and its value which the weights are the best of their run in.
        evaluation: the content of an evaluation's `evaluation.json`.
        schnet_version: of the package that wrote the file.
    """

    config: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    mirror_pairs: tuple[tuple[int, int], ...]
    prompts: tuple[tuple[str, ...], ...]
    ignore_label: int
    dtype: str
    bases: Mapping[str, BaseSource]
    derived: tuple[str, ...]
    iteration: int | None = None
    best: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    schnet_version: str = ""

    def as_metadata(self) -> dict[str, str]:
        """The attributes as strings, those that are none as JSON; `metrics` holds three of them."""
        lists = {
            "classes": self.classes,
            "palette": self.palette,
            "mirror_pairs": self.mirror_pairs,
            "prompts": self.prompts,
            "ignore_label": self.ignore_label,
            "bases": {prefix: source.as_dict() for prefix, source in self.bases.items()},
            "derived": self.derived,
            "metrics": {
                "iteration": self.iteration,
                "best": dict(self.best),
                "evaluation": dict(self.evaluation),
            },
        }
        return {
            "format": EXPORT_FORMAT,
            "schnet_version": self.schnet_version,
            "config": self.config,
            "dtype": self.dtype,
            **{name: json.dumps(value) for name, value in lists.items()},
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ExportHeader:
        """Take the attributes out of a file's metadata.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: an entry is missing or malformed.
        """
        read = {
            name: json.loads(metadata[name])
            for name in ("classes", "palette", "mirror_pairs", "prompts", "ignore_label")
            + ("bases", "derived", "metrics")
        }
        metrics = read["metrics"]
        return cls(
            config=metadata["config"],
            classes=tuple(read["classes"]),
            palette=tuple((r, g, b) for r, g, b in read["palette"]),
            mirror_pairs=tuple((left, right) for left, right in read["mirror_pairs"]),
            prompts=tuple(tuple(phrases) for phrases in read["prompts"]),
            ignore_label=int(read["ignore_label"]),
            dtype=metadata["dtype"],
            bases={prefix: BaseSource.from_dict(entry) for prefix, entry in read["bases"].items()},
            derived=tuple(read["derived"]),
            iteration=metrics["iteration"],
            best=metrics["best"],
            evaluation=metrics["evaluation"],
            schnet_version=metadata["schnet_version"],
        )


def is_export(weights: str) -> bool:
    """Whether MODEL.WEIGHTS is an export, which brings the bases' weights with it.

    Args:
        weights: path or URL; what is remote is fetched into the cache.

    Returns:
        False also where there is no such file.
    """
    if not weights.endswith(ENDING) or ("://" not in weights and not os.path.isfile(weights)):
        return False
    return read_export_header(locate_weights(weights, "MODEL.WEIGHTS")) is not None


def read_export_header(path: str | Path) -> ExportHeader | None:
    """Read the header of an export; no tensor is read.

    Args:
        path: an existing file.

    Returns:
        The header; None where the file is no export, or is not to be read.

    Raises:
        InputError: it is an export of a later format, or its header is not whole.
    """
    if not str(path).endswith(ENDING):
        return None
    metadata = _read_metadata(path)
    match = _FORMAT.fullmatch(metadata.get("format", ""))
    if match is None:
        return None
    if int(match.group(1)) > _VERSION:
        raise InputError(
            f"{path} was written by a newer version of schnet (format {metadata['format']!r}, and "
            f"this one reads up to {EXPORT_FORMAT!r}): update schnet"
        )
    try:
        return ExportHeader.from_metadata(metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the header of {path} cannot be used ({type(error).__name__}: {error}): export the "
            "checkpoint again"
        ) from error


def _read_metadata(path: str | Path) -> dict[str, str]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:  # reading the weights says what to install
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):  # reading the weights says what is wrong with the file
        return {}


def read_export(path: str | Path, header: ExportHeader, key: str) -> dict[str, torch.Tensor]:
    """Read the tensors of an export, the derived ones among them, all that are floating as fp32.

    Args:
        path: the file.
        header: its header.
        key: the config key or option that names it, for error messages.

    Raises:
        InputError: the file cannot be read, or lacks a derived tensor.
    """
    tensors = read_state_dict(str(path), key)
    lacking = [name for name in header.derived if name not in tensors]
    if lacking:
        raise InputError(f"{key} names {path}, which lacks {lacking[0]}: export it again")
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}


def write_export(path: Path, tensors: Mapping[str, torch.Tensor], header: ExportHeader) -> None:
    """Write an export, whole or not at all.

    Raises:
        InputError: it cannot be written; what was there is as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with whole_file(path, "the export") as temporary:
        try:
            save_file(dict(tensors), str(temporary), header.as_metadata())
        except SafetensorError as error:
            raise OSError(str(error)) from error
