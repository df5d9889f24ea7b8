"""Folders that nobody may look into, for tests that run as root too."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Lose the rights of root, who may look into every folder."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@contextlib.contextmanager
def locked_folder(*files: str) -> Iterator[Path]:
    """A folder with some empty files and a folder `locked` that may not be looked into."""
    with tempfile.TemporaryDirectory() as name:  # not pytest's, which only its owner may enter
        folder = Path(name)
        folder.chmod(0o755)
        for file in files:
            (folder / file).touch()
        locked = folder / "locked"
        locked.mkdir(0)
        try:
            with as_nobody():
                yield folder
        finally:
            locked.chmod(0o755)
