"""Merging of YAML files and command-line overrides into a config, each fault in one sentence."""

from __future__ import annotations

import os
import textwrap

import yaml
from detectron2.config import CfgNode as CN

from schnet.errors import InputError

MAX_REASON = 300
# What Detectron2 and yacs raise for files and overrides that they cannot merge.
_MERGE_ERRORS = (
    AssertionError,
    AttributeError,
    KeyError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    yaml.YAMLError,
)


def merge_file(cfg: CN, file: str | os.PathLike[str]) -> None:
    """Merge a YAML file and its `_BASE_` into a config, in place.

    Raises:
        InputError: the file is missing or no YAML, a key is unknown or a value has the wrong type.
    """
    if not os.path.isfile(file):
        raise InputError(f"there is no config file {file}: give the path of a YAML file")
    try:
        cfg.merge_from_file(os.fspath(file))
    except _MERGE_ERRORS as error:
        raise InputError(f"the config file {file} cannot be used: {_one_line(error)}") from error


def merge_overrides(cfg: CN, opts: list[str]) -> None:
    """Merge alternating keys and values, as on a command line, into a config, in place.

    Raises:
        InputError: they are no pairs, a key is unknown or a value has the wrong type.
    """
    if len(opts) % 2:
        raise InputError(
            f"the overrides {' '.join(opts)!r} are not pairs: give KEY VALUE KEY VALUE ..."
        )
    try:
        cfg.merge_from_list(opts)
    except _MERGE_ERRORS as error:
        raise InputError(f"the overrides cannot be used: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    # yacs quotes whole sections of the config in some of its messages.
    return textwrap.shorten(text, MAX_REASON, placeholder=" ...")
