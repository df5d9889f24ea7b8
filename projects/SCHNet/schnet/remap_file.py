"""The YAML file of a remap of one's own, read and checked; see `schnet.remap`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schnet.data.class_list import read_names, read_palette
from schnet.data.labels import Color
from schnet.data.yaml_files import read_mapping
from schnet.errors import InputError

BACKGROUND, IGNORE, ERROR = "background", "ignore", "error"
DEFAULTS = (BACKGROUND, IGNORE, ERROR)
KEYS = ("classes", "map", "default", "palette")


@dataclass(frozen=True)
class RemapFile:
    """What a file says.

    Attributes:
        classes: names of the other list, in label order.
        palette: a colour (r, g, b) in 0..255 each.
        map: names of that list by names of the first.
        default: one of `DEFAULTS`.
    """

    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    map: Mapping[str, str]
    default: str


def read_remap_file(path: Path) -> RemapFile:
    """Read a remap file; whether it fits a label list is not known here.

    Raises:
        InputError: it cannot be read, lacks a key, has an unknown one, or one twice, or a value is
            of another kind.
    """
    content = read_mapping(path, "classes, map and default", _StrictLoader)
    unknown = sorted(set(content) - set(KEYS), key=str)
    if unknown:
        raise InputError(f"{path} has the key {unknown[0]!r}: the keys are {', '.join(KEYS)}")
    classes = read_names(content.get("classes"), path, "classes")
    default = content.get("default", ERROR)
    if default not in DEFAULTS:
        raise InputError(f"default in {path} is {default!r}: give one of {', '.join(DEFAULTS)}")
    entries = content.get("map")
    if not isinstance(entries, dict) or not entries:
        raise InputError(
            f"map in {path} is {entries!r}: give the name of the other list for each name, such as "
            "{Hat: head, Hair: head}"
        )
    for source, target in entries.items():
        # YAML reads `no`, `on` and numbers as something else than words.
        if not isinstance(source, str) or not isinstance(target, str):
            raise InputError(
                f"map in {path} has {source!r}: {target!r}: give two names, quoted where YAML "
                "takes them for something else"
            )
    palette = read_palette(content.get("palette"), classes, path, "palette")
    return RemapFile(classes, palette, entries, default)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML's readers take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{twice!r} stands twice in the mapping of line {line}")
        return super().construct_mapping(node, deep)
