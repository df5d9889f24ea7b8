"""Id lists: the text files that name the images of a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from schnet.data.file_names import IMAGE_ENDINGS
from schnet.errors import InputError


def parse_ids(text: str, endings: Sequence[str] = IMAGE_ENDINGS) -> tuple[str, ...]:
    """Read an id list: a name a line, with or without an image's ending, or below folders.

    Blank lines and repeated names are passed over.
    """
    ids = []
    for line in text.splitlines():
        name = PurePosixPath(line.strip()).name
        stem, ending = os.path.splitext(name)
        ids.append(stem if ending.lower() in endings else name)
    return tuple(dict.fromkeys(name for name in ids if name))


def decode_ids(content: bytes, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read the bytes of an id list.

    Args:
        content: UTF-8 text, with or without a byte order mark.
        path: where it was read, for the error messages.

    Raises:
        InputError: it is no such text or names no image.
    """
    try:
        ids = parse_ids(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"the id list {path} is no UTF-8 text ({error}): download it again"
        ) from None
    if not ids:
        raise InputError(f"the id list {path} names no image: download it again")
    return ids
