"""`classes.yaml`: the label list of one's own data set, read and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schnet.data.labels import IGNORE_LABEL, PHRASES, Color
from schnet.data.yaml_files import read_mapping
from schnet.errors import InputError

KEYS = ("names", "colors", "mirror_pairs", "prompts")


@dataclass(frozen=True)
class ClassList:
    """A label list.

    Attributes:
        names: class names; their position is their label value.
        palette: one (red, green, blue) in 0..255 a class.
        mirror_pairs: label values that change places when an image is mirrored.
        prompts: one or more noun phrases a class, for CLIP.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]
    mirror_pairs: tuple[tuple[int, int], ...]
    prompts: tuple[tuple[str, ...], ...]


def read_class_list(path: Path) -> ClassList:
    """Read a `classes.yaml`.

    Its keys are `names` (a list), and optionally `colors` and `prompts` (a list in label order, or
    by name) and `mirror_pairs` (pairs of names or of label values). Classes without a colour get
    one of Pascal VOC's colour map, which has black for label 0; classes without prompts the
    phrases that this package knows for the name, or else the name itself.

    Raises:
        InputError: the file is missing, is no YAML, or says something impossible.
    """
    content = _load(path)
    unknown = sorted(set(content) - set(KEYS), key=str)
    if unknown:
        raise InputError(f"{path} has the key {unknown[0]!r}: the keys are {', '.join(KEYS)}")
    names = read_names(content.get("names"), path)
    return ClassList(
        names,
        read_palette(content.get("colors"), names, path),
        _mirror_pairs(content.get("mirror_pairs"), names, path),
        _prompts(content.get("prompts"), names, path),
    )


def voc_color(label: int) -> Color:
    """Give Pascal VOC's colour of a label in 0..255: its bits spread over the three channels."""
    red = green = blue = 0
    for shift in range(8):
        bits = label >> (3 * shift)
        red |= (bits & 1) << (7 - shift)
        green |= (bits >> 1 & 1) << (7 - shift)
        blue |= (bits >> 2 & 1) << (7 - shift)
    return red, green, blue


def phrases_of(name: str) -> tuple[str, ...]:
    """Give the phrases that this package knows for a name, or else the name as words."""
    words = name.replace("-", " ").replace("_", " ").lower()
    return PHRASES.get(name.lower().replace(" ", "-"), (words,))


def _load(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise InputError(
            f"there is no {path}: write one with a line `names: [background, ...]` in label order, "
            "as datasets/README.md shows"
        )
    return read_mapping(path, "a line `names: [background, ...]`")


def read_names(value: Any, path: Path, key: str = "names") -> tuple[str, ...]:
    """Check the list of names that stands in a file.

    Args:
        value: as the YAML has it.
        path: the file, for messages.
        key: under which it stands there, likewise.

    Raises:
        InputError: it is no list of 2 to 255 different names.
    """
    # YAML reads `no`, `on` and numbers as something else than words.
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise InputError(
            f"{key} in {path} is {value!r}: give a list of words in label order, quoted where YAML "
            "takes them for something else"
        )
    if not 2 <= len(value) <= IGNORE_LABEL:
        raise InputError(f"{path} names {len(value)} classes: give 2 to {IGNORE_LABEL}")
    name, count = Counter(value).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path} names {name!r} {count} times: every class needs its own name")
    return tuple(value)


def _by_class(value: Any, names: Sequence[str], key: str, path: Path) -> dict[int, Any]:
    """Read a list in label order, or a mapping by name, as a mapping by label."""
    if value is None:
        return {}
    if isinstance(value, dict):
        for name in value:
            _label(name, names, key, path)
        return {names.index(name): one for name, one in value.items()}
    if not isinstance(value, list) or len(value) != len(names):
        raise InputError(
            f"{key} in {path} is {value!r}: give one for each of the {len(names)} names in their "
            "order, or a mapping by name"
        )
    return dict(enumerate(value))


def _label(name: Any, names: Sequence[str], key: str, path: Path) -> int:
    """Give the label value of a name."""
    if isinstance(name, str) and name in names:
        return names.index(name)
    raise InputError(f"{key} in {path} has {name!r}, which is none of the names: correct it")


def read_palette(
    value: Any, names: Sequence[str], path: Path, key: str = "colors"
) -> tuple[Color, ...]:
    """Check the colours that stand in a file, and choose those that do not.

    Args:
        value: as the YAML has it; None chooses all.
        names: of the classes.
        path: the file, for messages.
        key: under which they stand there, likewise.

    Raises:
        InputError: they are no colours of these names.
    """
    given = _by_class(value, names, key, path)
    for label, color in given.items():
        if (
            not isinstance(color, list)
            or len(color) != 3
            or not all(type(channel) is int and 0 <= channel <= 255 for channel in color)
        ):
            raise InputError(
                f"the color of {names[label]!r} in {path} is {color!r}: give [red, green, blue], "
                "each 0..255"
            )
    taken = {tuple(color) for color in given.values()}
    free = (voc_color(label) for label in range(256) if voc_color(label) not in taken)
    return tuple(
        tuple(given[label]) if label in given else next(free)  # type: ignore[misc]
        for label in range(len(names))
    )


def _mirror_pairs(value: Any, names: Sequence[str], path: Path) -> tuple[tuple[int, int], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(
            f"mirror_pairs in {path} is {value!r}: give a list of pairs, such as "
            "[[left sleeve, right sleeve]]"
        )
    pairs: list[tuple[int, int]] = []
    seen: set[int] = set()
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"mirror_pairs in {path} has {pair!r}: give pairs of two names")
        left, right = (_pair_label(one, names, path) for one in pair)
        if left == right or {left, right} & seen:
            raise InputError(
                f"mirror_pairs in {path} has {pair!r}: every label may be in one pair, with another"
            )
        seen |= {left, right}
        pairs.append((left, right))
    return tuple(pairs)


def _pair_label(value: Any, names: Sequence[str], path: Path) -> int:
    if type(value) is int and 0 <= value < len(names):
        return value
    return _label(value, names, "mirror_pairs", path)


def _prompts(value: Any, names: Sequence[str], path: Path) -> tuple[tuple[str, ...], ...]:
    given = _by_class(value, names, "prompts", path)
    prompts = []
    for label, name in enumerate(names):
        phrases = given.get(label)
        if isinstance(phrases, str):
            phrases = [phrases]
        if label not in given:
            phrases = list(phrases_of(name))
        if (
            not isinstance(phrases, list)
            or not phrases
            or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases)
        ):
            raise InputError(
                f"the prompts of {name!r} in {path} are {phrases!r}: give one or more phrases"
            )
        prompts.append(tuple(phrases))
    return tuple(prompts)
