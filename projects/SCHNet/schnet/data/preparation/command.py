"""What the prepare scripts in `datasets/` share: their command line, and the way to an index."""

from __future__ import annotations

import argparse
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
        type=_share,
        default=DEFAULT_MAX_DAMAGED,
        metavar="SHARE",
        help="share of damaged pairs above which nothing is indexed (default: %(default)s)",
    )
    return parser


def add_jobs_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs`."""
    parser.add_argument(
        "--jobs",
        type=_positive,
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


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return value
