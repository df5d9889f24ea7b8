"""A run's numbers and sample images on Weights & Biases."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage

from schnet.checkpoint import find_checkpoints
from schnet.data.files import atomic_path
from schnet.engine.run_writer import RunWriter
from schnet.errors import InputError
from schnet.wandb_package import import_wandb

RUN_FILE = "wandb_run.json"
_STEP = "iteration"


class Run(Protocol):
    """What the writer needs of a run of the package `wandb`."""

    def define_metric(self, name: str, step_metric: str | None = None) -> Any:
        """Say what a metric is drawn over."""

    def log(self, data: dict[str, Any]) -> None:
        """Record values of one moment."""

    def finish(self) -> None:
        """Send what is left, and end."""


class WandbWriter(RunWriter):
    """Writes scalars and sample images to a run of Weights & Biases.

    Everything is drawn over `iteration`, a value of its own: the package's counter of steps only
    goes up, and would drop what a resumed run computes again.
    """

    def __init__(self, run: Run, as_image: Callable[[Any], Any]) -> None:
        """Take an open run.

        Args:
            run: of `wandb.init`.
            as_image: makes what the run can log of a picture (H, W, 3), uint8 RGB.
        """
        super().__init__()
        self._run = run
        self._as_image = as_image
        run.define_metric(_STEP)
        run.define_metric("*", step_metric=_STEP)

    def write(self) -> None:
        """Log the scalars that are new, and the images that no writer has taken yet.

        It must come before Detectron2's writer for TensorBoard, which takes the images away.
        """
        storage = get_event_storage()
        for iteration, values in self.new_scalars(storage):
            self._run.log({_STEP: iteration, **values})
        images: dict[int, dict[str, Any]] = {}
        # The storage has no public way to read them; Detectron2's own writer does it like this.
        for name, picture, iteration in storage._vis_data:
            pixels = np.asarray(picture).transpose(1, 2, 0)
            images.setdefault(iteration, {})[name] = self._as_image(pixels)
        for iteration, pictures in images.items():
            self._run.log({_STEP: iteration, **pictures})

    def close(self) -> None:
        """End the run, when all is sent."""
        self._run.finish()


def build_wandb_writer(cfg: CfgNode) -> WandbWriter:
    """Open a run, or the same one again where OUTPUT_DIR holds checkpoints of it.

    Its id is kept in `OUTPUT_DIR/wandb_run.json`. The package's environment variables hold, such
    as WANDB_MODE.

    Args:
        cfg: WANDB and OUTPUT_DIR count; all of it goes to the run.

    Raises:
        InputError: the package is not installed, or it opens no run.
    """
    wandb = import_wandb()
    folder = Path(cfg.OUTPUT_DIR)
    run_id = _kept_id(folder, cfg.WANDB.PROJECT) or secrets.token_hex(4)
    try:
        run = wandb.init(
            project=cfg.WANDB.PROJECT,
            name=cfg.WANDB.NAME or str(cfg.OUTPUT_DIR),
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=yaml.safe_load(cfg.dump()),
        )
    except Exception as error:
        raise InputError(
            f"Weights & Biases opens no run ({' '.join(str(error).split())}): run `wandb login`, "
            "set the environment variable WANDB_MODE=offline, or set WANDB.ENABLED False"
        ) from error
    with atomic_path(folder / RUN_FILE) as temporary:
        content = {"id": run_id, "project": cfg.WANDB.PROJECT}
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return WandbWriter(run, wandb.Image)


def _kept_id(folder: Path, project: str) -> str | None:
    """Give the id of the run that is continued; None for a new one, or one of another project."""
    path = folder / RUN_FILE
    if not path.exists() or not find_checkpoints(folder):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["id"]) if content["project"] == project else None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the note of a Weights & Biases run: restore it, or remove it to begin "
            "a new one"
        ) from error
