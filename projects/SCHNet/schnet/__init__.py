"""SCHNet: SAM marries CLIP for human parsing, on Detectron2. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "InputError": "schnet.errors",
    "Parser": "schnet.inference",
    "Parsing": "schnet.parsing",
    "load_config": "schnet.config",
    "register_datasets": "schnet.data.catalog",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    """Import an export when it is asked for, so that `import schnet` costs nothing (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
