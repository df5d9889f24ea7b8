"""A model's weights in and out: strict loading, and a run's checkpoints, written atomically.

A checkpoint of a run is a file of `torch.save` with `format`, `model` (the state dict),
`optimizer`, `scheduler`, `trainer` (the hooks' states) and `iteration`, the last one that was
finished (-1 before the first).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from schnet.errors import InputError
from schnet.weight_files import OFFICIAL_WEIGHTS, read_state_dict, read_torch_file

__all__ = [
    "CHECKPOINT_FORMAT",
    "INITIAL_CHECKPOINT",
    "OFFICIAL_WEIGHTS",
    "ParsingCheckpointer",
    "checkpoint_name",
    "find_checkpoints",
    "latest_checkpoint",
    "load_model_weights",
    "periodic_checkpoints",
    "read_state_dict",
]

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = "schnet-checkpoint/1"
INITIAL_CHECKPOINT = "model_init"
_LAST = "last_checkpoint"
_PERIODIC = re.compile(r"model_(\d{7,})\.pth")


def checkpoint_name(iteration: int) -> str:
    """File name, without ending, of the checkpoint after an iteration; -1 is the initial one."""
    return INITIAL_CHECKPOINT if iteration < 0 else f"model_{iteration:07d}"


def find_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """All weight files of a folder, sorted by name; none where there is no such folder."""
    return sorted(path for path in Path(folder).glob("*.pth") if path.is_file())


def periodic_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The initial and the periodic checkpoints of a run, oldest first, without best and final."""
    iterations = {}
    for path in find_checkpoints(folder):
        match = _PERIODIC.fullmatch(path.name)
        if match:
            iterations[path] = int(match.group(1))
        elif path.stem == INITIAL_CHECKPOINT:
            iterations[path] = -1
    return sorted(iterations, key=lambda path: iterations[path])


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint that a run resumes from, or None.

    The file `last_checkpoint` names it; where that is gone or names a file which is not there, it
    is the periodic checkpoint with the highest iteration.
    """
    try:
        named = Path(folder) / (Path(folder) / _LAST).read_text(encoding="utf-8").strip()
    except OSError:
        named = None
    if named is not None and named.is_file():
        return named
    periodic = periodic_checkpoints(folder)
    return periodic[-1] if periodic else None


def load_model_weights(model: nn.Module, weights: str, key: str = "MODEL.WEIGHTS") -> None:
    """Load all weights of a model from a checkpoint or a bare state dict; strictly, in place.

    Args:
        model: the model; all its persistent parameters and buffers must be in the file.
        weights: path, URL or official name.
        key: the config key or option that names it, for error messages.

    Raises:
        InputError: the file cannot be read, or is of another model: names the first keys that
            are missing, unknown or of another shape.
    """
    state = read_state_dict(weights, key)
    _require_fit(model, state, f"{key} names {weights}")
    model.load_state_dict(state, strict=True)


def _require_fit(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuse a state dict that has not exactly the keys and shapes of a model's."""
    wanted = model.state_dict()
    misfit = _shape_misfit(wanted, state) or _key_misfit(wanted, state)
    if misfit:
        raise InputError(
            f"{source}, which does not fit this model: {misfit}; give weights that were trained "
            "with this config, or the config that they were trained with"
        )


def _shape_misfit(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """Tell the first tensors of other shapes; as another class count where it is nothing else."""
    shapes = {
        name: (tuple(state[name].shape), tuple(wanted[name].shape))
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    }
    if not shapes:
        return ""
    name, (theirs, ours) = next(iter(shapes.items()))
    told = f"{name} has shape {theirs} there and {ours} here"
    # Rows more or fewer, and no other layer that takes them: these are the model's outputs.
    if len({(a[:1], b[:1]) for a, b in shapes.values()}) == 1 and all(
        a and b and a[0] != b[0] and a[1:] == b[1:] for a, b in shapes.values()
    ):
        return (
            f"it was trained for {theirs[0]} classes and MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
            f"{ours[0]} ({told})"
        )
    return told


def _key_misfit(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    missing = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    parts = []
    if missing:
        parts.append(f"it lacks {_first_of(missing)}")
    if unknown:
        parts.append(f"it has {_first_of(unknown)}, which the model has not")
    return " and ".join(parts)


def _first_of(names: Sequence[str], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


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
        self._write(name, {"model": self.model.state_dict(), **states, **extra})
        self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, **extra: Any) -> None:
        """Write only the model as `<name>.pth`; a run does not resume from it.

        Raises:
            InputError: the file cannot be written.
        """
        if self.save_to_disk:
            self._write(name, {"model": self.model.state_dict(), **extra})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        target = Path(self.save_dir) / f"{name}.pth"
        # One writer per folder, so one name serves; what a killed run left is written over.
        temporary = target.with_name(f".{target.name}.tmp")
        logger.info("saving %s", target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                torch.save({"format": CHECKPOINT_FORMAT, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"the checkpoint {target} cannot be written ({reason}): free space or correct "
                "OUTPUT_DIR, and continue with --resume"
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name, atomically, the file that a run resumes from."""
        target = Path(self.save_dir) / _LAST
        temporary = target.with_name(f".{_LAST}.tmp")
        temporary.write_text(last_filename_basename, encoding="utf-8")
        os.replace(temporary, target)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint of this run: the model strictly, and every state.

        Args:
            path: a file that `save` wrote.
            checkpointables: names of the states to load; None loads all.

        Returns:
            The entries that are neither the model nor a loaded state, such as `iteration`.

        Raises:
            InputError: the file cannot be read, is of another model, lacks a state or the
                iteration, or has a state of other trained parameters; the model is unchanged.
        """
        logger.info("loading %s", path)
        content = read_torch_file(path, "--resume")
        names = list(self.checkpointables) if checkpointables is None else checkpointables
        if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
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
        model_state, source = content.pop("model"), f"--resume takes {path}"
        _require_fit(self.model, model_state, source)
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
        self.model.load_state_dict(model_state, strict=True)
        return content
