"""What the prepare scripts in `datasets/` share: their command line, and the way to an index."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schnet.data.preparation.output import check_target, index_file
from schnet.data.preparation.pairs import LabelConverter
from schnet.data.preparation.report import report
from schnet.data.preparation.sources import SourceTree
from schnet.data.preparation.splits import (
    SplitFiles,
    index_split,
    prepare_split,
    refuse_too_many_problems,
)
from schnet.data.specs import DatasetSpec

DEFAULT_MAX_DAMAGED = 0.05


@dataclass(frozen=True)
class PrepareOptions:
    """What the command line says.

    Attributes:
        output: folder to write to, outside the download.
        jobs: number of processes, >= 1.
        max_damaged: largest share of pairs that may be left out, in [0, 1].
    """

    output: Path
    jobs: int = 1
    max_damaged: float = DEFAULT_MAX_DAMAGED


def prepare_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Make the parser of a prepare script; it may get more options.

    Args:
        name: the data set's, for the default of --output.
        description: shown by --help.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--source",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="folder of the download, as the archives unpack, or the zip files; never changed",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("datasets", name), help="folder to write to"
    )
    add_jobs_argument(parser)
    parser.add_argument(
        "--max-damaged",
        type=parse_share,
        default=DEFAULT_MAX_DAMAGED,
        metavar="SHARE",
        help="share of damaged pairs above which nothing is indexed (default: %(default)s)",
    )
    return parser


def add_jobs_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs`."""
    parser.add_argument(
        "--jobs",
        type=parse_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes to work with (default: one a core)",
    )


def read_options(namespace: argparse.Namespace) -> PrepareOptions:
    """Take the common options off a parsed command line."""
    return PrepareOptions(namespace.output, namespace.jobs, namespace.max_damaged)


def prepare(
    spec: DatasetSpec,
    tree: SourceTree,
    splits: Mapping[str, SplitFiles],
    options: PrepareOptions,
    *,
    convert: LabelConverter | None = None,
    settings: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> str:
    """Check all splits, write what must be written, then their indexes.

    Args:
        spec: the data set.
        tree: the download.
        splits: its splits.
        options: of the command line.
        convert: makes labels of a label file; None where they are index PNGs already.
        settings: what `convert` depends on besides the file.
        notes: further lines of the summary.

    Returns:
        The summary to print.

    Raises:
        InputError: the output lies in the download or holds files of another's, or too much is
            damaged; no index is written.
    """
    folders = {one.written_images for one in splits.values()}
    folders |= {one.written_labels for one in splits.values()}
    target = check_target(options.output, tree, list(splits), sorted(folders))
    prepared = {
        split: prepare_split(
            spec, split, files, target, jobs=options.jobs, convert=convert, settings=settings
        )
        for split, files in splits.items()
    }
    results = {split: one.results for split, one in prepared.items()}
    refuse_too_many_problems(results, options.max_damaged)
    for split, one in prepared.items():
        index_split(spec, one, index_file(target, split))
    written = ", ".join(str(index_file(target, split)) for split in splits)
    return report(spec, results, {**(notes or {}), "written": written})


def parse_count(text: str, least: int = 1) -> int:
    """Read a whole number off a command line.

    Raises:
        ArgumentTypeError: it is none, or below `least`.
    """
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
    return int(text)


def parse_share(text: str) -> float:
    """Read a share in [0, 1] off a command line.

    Raises:
        ArgumentTypeError: it is none.
    """
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number in [0, 1]")
