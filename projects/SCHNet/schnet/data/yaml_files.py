"""Reading what users write in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from schnet.errors import InputError


def read_mapping(
    path: Path, wanted: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader
) -> Mapping[str, Any]:
    """Read a file whose content is a mapping.

    Args:
        path: the file.
        wanted: what to give the file where it is no mapping, for the message.
        loader: a safe one.

    Raises:
        InputError: it cannot be read, is no YAML, or no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506  it is safe
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{path} cannot be read as YAML ({' '.join(str(error).split())}): correct it"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no mapping: give it {wanted}")
    return content
