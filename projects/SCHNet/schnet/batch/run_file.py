"""`run.json`: what the results in a folder were parsed with, so that no others join them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schnet.batch.layout import RUN_FILE, own_folder, results_file
from schnet.data.files import atomic_path
from schnet.errors import InputError

_WRITER = "schnet parse"


@dataclass(frozen=True)
class RunIdentity:
    """What a label map depends on, besides its photo.

    Attributes:
        parts: by what they are to the user (`the weights`): a digest or the value itself.
    """

    parts: Mapping[str, str]

    @property
    def id(self) -> str:
        """A digest of the parts, 16 hexadecimal digits."""
        return digest_of(json.dumps(sorted(self.parts.items())))[:16]


def digest_of(text: str) -> str:
    """SHA-256 of a text, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def check_run(folder: Path, identity: RunIdentity, overwrite: bool = False) -> None:
    """Refuse a folder whose results are of another model or other options.

    Args:
        folder: of the results; it may be missing.
        identity: of this run.
        overwrite: the user wants results of another model replaced.

    Raises:
        InputError: they are, or `run.json` or `results.jsonl` is the user's own.
    """
    file = folder / RUN_FILE
    if not file.exists():
        if results_file(folder).exists() or own_folder(folder).is_file():
            strange = results_file(folder) if results_file(folder).exists() else own_folder(folder)
            raise InputError(
                f"{strange} exists and was not written by this command: give another --output "
                "folder, or move that file away"
            )
        return
    earlier = _read(file)
    differing = sorted(
        part
        for part in {*earlier, *identity.parts}
        if earlier.get(part) != identity.parts.get(part)
    )
    if differing and not overwrite:
        raise InputError(
            f"the results in {folder} were parsed otherwise ({', '.join(differing)} changed; see "
            f"{file.name} there): give another --output folder, or --overwrite to parse again"
        )


def write_run(
    folder: Path,
    identity: RunIdentity,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> None:
    """Write `run.json`, if it does not say this already.

    Args:
        folder: of the results; it must exist.
        identity: of this run.
        classes: K names, in the order of the labels written.
        palette: K colours (r, g, b) in 0..255.
    """
    content = {
        "written_by": _WRITER,
        "run": identity.id,
        "parsed_with": dict(identity.parts),
        "classes": list(classes),
        "palette": [list(color) for color in palette],
    }
    text = json.dumps(content, indent=1) + "\n"
    file = folder / RUN_FILE
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    with atomic_path(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["written_by"] == _WRITER:
            return {str(part): str(value) for part, value in content["parsed_with"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        f"{file} exists and was not written by this command: give another --output folder, or move "
        "that file away"
    )
