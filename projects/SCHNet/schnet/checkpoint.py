"""A model's weights in and out: a run's checkpoints, and loading the whole model's weights.

With `schnet.export_file`, the only place that reads or writes the weight files of our own. A
checkpoint (format `schnet-checkpoint/2`) is a file of `torch.save` with

- `format`, and `iteration`, the last one that was finished (-1 before the first);
- `model`, the state dict without the bases that are frozen and came from a file;
- `bases`, what those are: a dict of `BaseSource` by the prefix of their names;
- the states of what else a run goes on with (`optimizer`, `scheduler`, `trainer`, `ema`), and more
  entries of its hooks (`rng`, `best`).

Format 1 differed in that `model` held the bases too.
"""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from schnet.checkpoint_files import (
    FINAL_CHECKPOINT,
    INITIAL_CHECKPOINT,
    LAST_FILE,
    DamagedFileError,
    checkpoint_name,
    choose_checkpoint,
    find_checkpoints,
    latest_checkpoint,
    periodic_checkpoints,
    read_checkpoint,
    whole_file,
)
from schnet.errors import InputError
from schnet.export_file import read_export, read_export_header
from schnet.fingerprints import BaseSource
from schnet.model_state import CLASSIFIER, StoredWeights, fit_weights, stored_state
from schnet.weight_files import OFFICIAL_WEIGHTS, locate_weights, read_state_dict

__all__ = [
    "CHECKPOINT_FORMAT",
    "FINAL_CHECKPOINT",
    "INITIAL_CHECKPOINT",
    "OFFICIAL_WEIGHTS",
    "DamagedFileError",
    "ParsingCheckpointer",
    "checkpoint_name",
    "choose_for_all",
    "find_checkpoints",
    "latest_checkpoint",
    "load_model_weights",
    "periodic_checkpoints",
    "read_state_dict",
    "read_stored_weights",
    "write_checkpoint",
]

logger = logging.getLogger(__name__)

_FORMAT_NAME, _VERSION = "schnet-checkpoint", 2
CHECKPOINT_FORMAT = f"{_FORMAT_NAME}/{_VERSION}"
_FORMAT = re.compile(rf"{_FORMAT_NAME}/(\d+)")


def load_model_weights(
    model: nn.Module,
    weights: str,
    key: str = "MODEL.WEIGHTS",
    *,
    ignore_classifier: bool = False,
) -> None:
    """Load all weights of a model from a checkpoint, a bare state dict or an export; in place.

    The averaged weights are taken where a checkpoint has them. What a checkpoint leaves out, a
    frozen base, stays as it is in the model, and must be the base that it was trained with.

    Args:
        model: the model, just built.
        weights: path, URL or official name.
        key: the config key or option that names it, for error messages.
        ignore_classifier: leave the classifier as it is: the start of training on other labels.

    Raises:
        InputError: the file cannot be read, or is of another model or base: names the first keys
            that are missing, unknown or of another shape, or both bases. The model is unchanged.
    """
    stored = read_stored_weights(weights, key)
    if ignore_classifier:
        logger.info("%s: its classifier is not loaded and starts anew", stored.told)
    fit_weights(model, stored, CLASSIFIER if ignore_classifier else "").apply(model)


def read_stored_weights(weights: str, key: str) -> StoredWeights:
    """Read what a weight file holds of a whole model: a checkpoint, a bare state dict, an export.

    Args:
        weights: path, URL or official name.
        key: the config key or option that names it, for error messages.

    Raises:
        InputError: the file is missing, damaged, of a later format, or holds no weights.
    """
    path, told = locate_weights(weights, key), f"{key} names {weights}"
    header = read_export_header(path)
    if header is not None:
        tensors = read_export(path, header, key)
        state = {name: tensors[name] for name in tensors if name not in header.derived}
        return StoredWeights(told, state, header.bases, header.iteration, header.best)
    # What is no archive is a damaged one or of another kind, as the reader tells.
    content: Any = read_checkpoint(path, key) if zipfile.is_zipfile(path) else None
    if _version(content, told) is None:
        return StoredWeights(told, read_state_dict(path, key))
    state = _model_state(content, told)
    if "ema" in content:
        averaged = content["ema"]
        logger.info(
            "%s: taking the averaged weights (EMA, decay %g)", told, averaged.get("decay", 0)
        )
        state = {**state, **averaged["model"]}
    # A file that a run resumes from may name the best of another iteration.
    best = {} if "optimizer" in content else content.get("best", {})
    return StoredWeights(told, state, _bases(content, told), content.get("iteration"), best)


def _version(content: Any, told: str) -> int | None:
    """The version of a checkpoint's format; None for other content."""
    written = content.get("format") if isinstance(content, Mapping) else None
    match = _FORMAT.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        return None
    version = int(match.group(1))
    if version > _VERSION:
        raise InputError(
            f"{told}, which was written by a newer version of schnet (format {written!r}, and this "
            f"one reads up to {CHECKPOINT_FORMAT!r}): update schnet"
        )
    return version


def _model_state(content: Mapping[str, Any], told: str) -> dict[str, torch.Tensor]:
    state = content.get("model")
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise InputError(f"{told}, which holds no weights under `model`: give another checkpoint")
    return dict(state)


def _bases(content: Mapping[str, Any], told: str) -> dict[str, BaseSource]:
    try:
        return {
            prefix: BaseSource.from_dict(entry)
            for prefix, entry in content.get("bases", {}).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{told}, which does not tell which bases it was trained with: give another checkpoint"
        ) from error


def write_checkpoint(
    target: Path,
    state: Mapping[str, torch.Tensor],
    bases: Mapping[str, BaseSource],
    **entries: Any,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        target: the file; its folder is made where it is missing.
        state: the weights that it holds.
        bases: what is left out of them, by prefix.
        entries: the other entries, plain types and tensors.

    Raises:
        InputError: it cannot be written; what was there is as it was.
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "model": dict(state),
        "bases": {prefix: source.as_dict() for prefix, source in bases.items()},
        **entries,
    }
    remedy = "free space or correct OUTPUT_DIR, and continue with --resume"
    # Through a file of Python's: PyTorch's own would not tell what the system said.
    with whole_file(target, "the checkpoint", remedy) as path, open(path, "wb") as file:
        torch.save(content, file)


def choose_for_all(folder: str | os.PathLike[str]) -> str:
    """Choose the newest checkpoint of a run that is not damaged, the same on every process.

    Every process must call it; the main one reads the files and decides.

    Args:
        folder: the run's folder.

    Raises:
        InputError: on every process, there is no checkpoint or all are damaged.
    """
    path, refusal = "", ""
    if comm.is_main_process():
        try:
            path = str(choose_checkpoint(folder))
        except InputError as error:
            refusal = str(error)
    # The first process is the main one.
    path, refusal = comm.all_gather((path, refusal))[0]
    if refusal:
        raise InputError(refusal)
    return path


class ParsingCheckpointer(Checkpointer):
    """Writes a run's checkpoints atomically, on the main process, and loads them strictly."""

    def __init__(self, model: nn.Module, save_dir: str, **checkpointables: Any) -> None:
        """Keep what a checkpoint is made of.

        Args:
            model: the model, wrapped for distributed training or not.
            save_dir: the run's folder.
            checkpointables: what else a run needs to go on (`optimizer`, `scheduler`,
                `trainer`): objects with `state_dict` and `load_state_dict`, states of plain
                types and tensors.
        """
        super().__init__(model, save_dir, save_to_disk=comm.is_main_process(), **checkpointables)
        self.path_manager = PathManager

    def save(self, name: str, **extra: Any) -> None:
        """Write the model and all the states as `<name>.pth`, and mark it as the last one.

        Args:
            name: file name without ending.
            extra: more entries, such as `iteration`.

        Raises:
            InputError: the file cannot be written; earlier checkpoints stay as they are.
        """
        if not self.save_to_disk:
            return
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        self._write(name, {**states, **extra})
        self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, **extra: Any) -> None:
        """Write only the model as `<name>.pth`; a run does not resume from it.

        Raises:
            InputError: the file cannot be written.
        """
        if self.save_to_disk:
            self._write(name, extra)

    def _write(self, name: str, entries: dict[str, Any]) -> None:
        target = Path(self.save_dir) / f"{name}.pth"
        logger.info("saving %s", target)
        write_checkpoint(target, *stored_state(self.model), **entries)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name, atomically, the file that a run resumes from.

        Raises:
            InputError: the name cannot be written.
        """
        with whole_file(Path(self.save_dir) / LAST_FILE, "the name of the checkpoint") as path:
            path.write_text(last_filename_basename, encoding="utf-8")

    def resume(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Load the newest checkpoint of a run that is not damaged, the same on every process.

        Every process must call it. The main one reads the files and decides; what was passed over
        stays where it is, until a later checkpoint of its name replaces it.

        Args:
            folder: the run's folder.

        Returns:
            What `load` returns.

        Raises:
            InputError: there is no checkpoint, all are damaged, or the newest one that is not
                cannot be loaded; see `load`.
        """
        return self.load(choose_for_all(folder))

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint of this run: the model strictly, and every state.

        Args:
            path: a file that `save` wrote.
            checkpointables: names of the states to load; None loads all.

        Returns:
            The entries that are neither the model nor a loaded state, such as `iteration`.

        Raises:
            DamagedFileError: the file's bytes are not those that were written.
            InputError: the file cannot be read, is of a newer format, of another model or base,
                lacks a state or the iteration, or has a state of other trained parameters; the
                model is unchanged.
        """
        logger.info("loading %s", path)
        content = read_checkpoint(path, "--resume")
        told = f"--resume takes {path}"
        names = list(self.checkpointables) if checkpointables is None else checkpointables
        if _version(content, told) is None:
            raise InputError(
                f"{path} is no checkpoint of format {CHECKPOINT_FORMAT!r}: resume from a folder "
                "that train_net.py wrote, or give the file as MODEL.WEIGHTS of a new run"
            )
        lacking = [name for name in ("model", *names, "iteration") if name not in content]
        if lacking:
            raise InputError(
                f"{path} lacks {', '.join(lacking)}, without which a run cannot resume: give it "
                "as MODEL.WEIGHTS of a new run"
            )
        stored = StoredWeights(told, _model_state(content, told), _bases(content, told))
        fitted = fit_weights(self.model, stored)
        for name in names:
            try:
                self.checkpointables[name].load_state_dict(content.pop(name))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"the run's trained parameters or settings differ from those of {path} "
                    f"({name}: {' '.join(str(error).split())}): resume with the run's "
                    "config.yaml or start a new OUTPUT_DIR"
                ) from error
        # Last, so that a refused file has changed no weight.
        fitted.apply(self.model)
        return {name: value for name, value in content.items() if name not in ("model", "bases")}
