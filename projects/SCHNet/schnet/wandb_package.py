"""The Weights & Biases package, which SCHNet does without where it is not wanted."""

from __future__ import annotations

import importlib
from types import ModuleType

from schnet.errors import InputError


def import_wandb() -> ModuleType:
    """Import the package `wandb`.

    Raises:
        InputError: it is not installed.
    """
    try:
        module = importlib.import_module("wandb")
    except ImportError:
        module = None
    # A folder `wandb`, such as its runs leave, is imported as an empty package.
    if module is None or not hasattr(module, "init"):
        raise InputError(
            "config key WANDB.ENABLED is True and the package wandb is not installed: run "
            "`pip install wandb`, or set WANDB.ENABLED False"
        )
    return module
