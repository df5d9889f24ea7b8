"""The config that a run writes into its folder, and how it differs from a later one."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.restarts import note_launch

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"


def write_run_config(cfg: CfgNode, start_iter: int) -> None:
    """Write the config of a training run into its folder; on the main process.

    A run that continues with another config than it started with keeps the old `config.yaml` and
    gets `config_resumed_<iteration>.yaml` beside it; the differing keys are logged. A run from the
    first iteration moves another `config.yaml` that it finds to `config_earlier_<n>.yaml`.

    Args:
        cfg: the run's config.
        start_iter: the first iteration of this process; 0 for a new run.
    """
    if not comm.is_main_process():
        return
    note_launch(cfg.OUTPUT_DIR)
    target = Path(cfg.OUTPUT_DIR) / CONFIG_FILE
    changed = []
    if target.exists():
        changed = _changed_keys(read_run_config(target), yaml.safe_load(cfg.dump()))
        if not changed:
            return
    if changed and start_iter == 0:
        number = 1 + len(list(target.parent.glob("config_earlier_*.yaml")))
        target.rename(target.with_name(f"config_earlier_{number}.yaml"))
    elif changed:
        target = target.with_name(f"config_resumed_{start_iter:07d}.yaml")
        logger.warning(
            "continuing with another config than the run began with (%s): see %s; the learning "
            "rate and the optimizer's settings stay those of the checkpoint",
            ", ".join(changed),
            target,
        )
    with atomic_path(target) as temporary:
        temporary.write_text(cfg.dump(), encoding="utf-8")


def config_beside(weights: Path) -> Path:
    """The config of the run that a checkpoint is of: `config.yaml` in its folder.

    Raises:
        InputError: there is none.
    """
    config = weights.parent / CONFIG_FILE
    if not config.is_file():
        raise InputError(
            f"there is no {CONFIG_FILE} beside {weights}: give the config that it was trained with "
            "as --config-file"
        )
    return config


def read_run_config(path: Path) -> dict[str, object]:
    """Read the config that a run wrote.

    Raises:
        InputError: it cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            f"the run's config {path} cannot be read ({' '.join(str(error).split())}): restore or "
            "remove it"
        ) from error
    return content if isinstance(content, dict) else {}


def _changed_keys(old: object, new: object, prefix: str = "") -> list[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [prefix.rstrip(".")]
    changed = []
    for key in sorted({*old, *new}, key=str):
        changed += _changed_keys(old.get(key), new.get(key), f"{prefix}{key}.")
    return changed
