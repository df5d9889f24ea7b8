"""The output folder of a preparation, in which nothing of the user's is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schnet.data.index import read_index
from schnet.data.preparation.sources import SourceTree
from schnet.errors import InputError


def index_file(target: Path, split: str) -> Path:
    """Give the path of a split's index."""
    return target / f"{split}.json"


def journal_path(target: Path, split: str) -> Path:
    """Give the path of a split's journal."""
    return target / f".{split}.journal.jsonl"


def check_target(
    output: Path, tree: SourceTree, splits: Sequence[str], folders: Sequence[str]
) -> Path:
    """Resolve the output folder, and refuse one where something of the user's could be lost.

    Args:
        output: the folder; it need not exist.
        tree: the download.
        splits: names of the splits whose indexes will be written.
        folders: folders below the output that photos and label maps may be written to.

    Raises:
        InputError: it lies in the download, is a file, or holds files under the names that would
            be written which no earlier run has written.
    """
    target = output.resolve()
    if tree.contains(target):
        raise InputError(
            f"--output {output} lies in the source {tree}, which is never changed: give another "
            "folder, or move the download elsewhere"
        )
    if target.exists() and not target.is_dir():
        raise InputError(f"--output {output} is a file: give a folder")
    indexes = [index_file(target, split) for split in splits]
    for path in indexes:
        refuse_foreign_index(path)
    own = [*indexes, *(journal_path(target, split) for split in splits)]
    if not any(path.exists() for path in own):
        for folder in folders:
            if (target / folder).exists():
                raise InputError(
                    f"{target / folder} is there already and no earlier run wrote it: give another "
                    "--output folder, or move that one away"
                )
    return target


def refuse_foreign_index(path: Path) -> None:
    """Refuse to replace a file that is no index of ours.

    Raises:
        InputError: names it.
    """
    if not path.exists():
        return
    try:
        read_index(path)
    except InputError as error:
        raise InputError(
            f"{path} would be replaced and is no index that was written here ({error}): move it "
            "away"
        ) from None
