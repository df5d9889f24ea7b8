"""From a download to index files: which files pair up, the work on them, what stops it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from schnet.data.file_names import IMAGE_ENDINGS, LABEL_ENDINGS, key_by_stem
from schnet.data.index import DatasetIndex, write_index
from schnet.data.preparation.journal import Journal
from schnet.data.preparation.output import journal_path
from schnet.data.preparation.pairs import (
    GOOD,
    LabelConverter,
    PairResult,
    PairRules,
    PairStatus,
    PairTask,
    check_pair,
    count_labels,
)
from schnet.data.preparation.sources import SourceFile, SourceFolder
from schnet.data.processes import process_map
from schnet.data.specs import DatasetSpec
from schnet.errors import InputError

# Pairs handed to a process at once.
_CHUNK = 8
_NAMED_PROBLEMS = 10

Results = Mapping[str, Sequence[PairResult]]
"""All results of each split, by its name."""


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split of a download, not yet paired.

    Attributes:
        images: folder of the photos.
        labels: folder of the label files; None where the split has none.
        ids: the split's image ids in order; None takes all that the folders hold.
        label_endings: lower-case endings of label files.
        written_labels: folder below the output folder for label maps that have to be written.
        written_images: the same for photos, which are copied out of zip files.
    """

    images: SourceFolder
    labels: SourceFolder | None
    ids: tuple[str, ...] | None
    label_endings: tuple[str, ...] = LABEL_ENDINGS
    written_labels: str = "labels"
    written_images: str = "images"


def files_by_id(folder: SourceFolder, endings: Sequence[str]) -> dict[str, SourceFile]:
    """Map a folder's files with certain endings by their name without it, sorted.

    Raises:
        InputError: two files differ in their ending only; both are named.
    """
    names = key_by_stem(folder.files, endings, folder.path)
    return {image_id: folder.files[name] for image_id, name in names.items()}


def pair_files(files: SplitFiles) -> list[PairTask]:
    """Pair a split's photos and label files by name; one without the other is a task too.

    Raises:
        InputError: names are ambiguous; see `files_by_id`.
    """
    images = files_by_id(files.images, IMAGE_ENDINGS)
    labels = {} if files.labels is None else files_by_id(files.labels, files.label_endings)
    # A missing photo is the label map's fault as often: both folders are the places to look in.
    places = [folder.path for folder in (files.images, files.labels) if folder is not None]
    ids = files.ids if files.ids is not None else sorted({*images, *labels})
    return [
        PairTask(
            image_id,
            images.get(image_id),
            labels.get(image_id),
            unlabelled=files.labels is None,
            place=places[0] if image_id not in images else places[-1],
        )
        for image_id in ids
    ]


@dataclass(frozen=True)
class PreparedSplit:
    """A split whose pairs have been checked and whose index is not yet written.

    Attributes:
        results: in the split's order.
        image_root: folder of the photos, absolute or relative to the index's folder.
        label_root: folder of the label maps, likewise.
    """

    results: tuple[PairResult, ...]
    image_root: str
    label_root: str


def prepare_split(
    spec: DatasetSpec,
    split: str,
    files: SplitFiles,
    target: Path,
    *,
    jobs: int,
    convert: LabelConverter | None = None,
    settings: Sequence[str] = (),
) -> PreparedSplit:
    """Check a split's pairs and write what must be written, but for its index.

    Photos and label maps stay where they are, except that files of zip archives are copied to the
    output folder, as are label maps that have to be converted. What an earlier run checked is not
    checked again while the files are the same.

    Args:
        spec: the data set.
        split: its name.
        files: of the split.
        target: the output folder.
        jobs: number of processes.
        convert: makes labels of a label file; None where they are index PNGs already.
        settings: what `convert` depends on besides the file, for the journal.

    Raises:
        InputError: names are ambiguous, or a file that is not as this wrote it would be replaced.
    """
    labels = files.labels
    writes_labels = labels is not None and (labels.archived or convert is not None)
    rules = PairRules(
        len(spec.classes),
        spec.palette,
        spec.ignore_label,
        convert=convert,
        target=target,
        image_folder=files.written_images if files.images.archived else "",
        label_folder=files.written_labels if writes_labels else "",
    )
    key = {
        "classes": list(spec.classes),
        "ignored": spec.ignore_label,
        "written": [rules.image_folder, rules.label_folder],
        "conversion": list(settings),
    }
    journal = Journal(journal_path(target, split), key)
    title = f"{spec.name} {split}"
    results = check_pairs(pair_files(files), rules, jobs=jobs, title=title, journal=journal)
    return PreparedSplit(
        tuple(results),
        rules.image_folder or files.images.path,
        rules.label_folder or ("." if labels is None else labels.path),
    )


def check_pairs(
    tasks: Sequence[PairTask],
    rules: PairRules,
    *,
    jobs: int,
    title: str,
    journal: Journal | None = None,
) -> list[PairResult]:
    """Check pairs in parallel, with a progress bar.

    Args:
        tasks: the pairs.
        rules: of their split; a `target` where there is a journal.
        jobs: number of processes; 1 works in this one.
        title: shown beside the bar.
        journal: what earlier runs found.

    Returns:
        The results in the order of the tasks.

    Raises:
        InputError: a process was killed.
    """
    known: list[PairResult | None] = [None] * len(tasks)
    if journal is not None and rules.target is not None:
        known = [journal.find(task, rules.target) for task in tasks]
    new = [task for task, result in zip(tasks, known, strict=True) if result is None]
    if journal is not None:
        new = [replace(task, earlier=journal.outputs(task)) for task in new]
    fresh = []
    work = partial(check_pair, rules=rules)
    with (
        tqdm(desc=title, unit="image", total=len(tasks), initial=len(tasks) - len(new)) as bar,
        journal or contextlib.nullcontext(),
        process_map(work, new, jobs=jobs, chunk=_CHUNK) as results,
    ):
        for task, result in zip(new, results, strict=True):
            if journal is not None:
                journal.add(task, result)
            fresh.append(result)
            bar.update()
    remaining = iter(fresh)
    return [next(remaining) if old is None else _as_unchanged(old) for old in known]


def _as_unchanged(result: PairResult) -> PairResult:
    if result.status is PairStatus.CHECKED:
        return replace(result, status=PairStatus.UNCHANGED)
    return result


def problems(results: Sequence[PairResult]) -> list[str]:
    """Give the sentences about the pairs that are left out for a fault."""
    return [result.problem for result in results if result.problem]


def refuse_too_many_problems(results: Results, max_share: float) -> None:
    """Stop where so many pairs are damaged that the download must be.

    Args:
        results: of all splits.
        max_share: largest allowed share of pairs that are left out, in [0, 1].

    Raises:
        InputError: the share is exceeded, or a split has no pair left; the first sentences are
            repeated.
    """
    every = [result for found in results.values() for result in found]
    told = problems(every)
    if len(told) > max_share * len(every):
        raise InputError(
            f"{len(told)} of {len(every)} pairs cannot be used, more than {max_share:.0%}, and no "
            f"index was written: repair the download or raise --max-damaged ({_first(told)})"
        )
    for split, found in results.items():
        if not any(result.status in GOOD for result in found):
            reason = _first(problems(found)) or "no image that shows a part is there"
            raise InputError(
                f"none of the {len(found)} pairs of the split {split} can be used, and no index "
                f"was written: repair the download ({reason})"
            )


def _first(told: Sequence[str]) -> str:
    return "; ".join(told[:_NAMED_PROBLEMS])


def index_split(spec: DatasetSpec, prepared: PreparedSplit, path: Path) -> None:
    """Write the index of one split from its usable pairs.

    Args:
        spec: the data set.
        prepared: the split.
        path: the index file.
    """
    pixels, _ = count_labels(prepared.results, len(spec.classes))
    index = DatasetIndex(
        classes=spec.classes,
        image_root=prepared.image_root,
        label_root=prepared.label_root,
        pixel_counts=tuple(pixels[:-1].tolist()),
        records=tuple(result.record for result in prepared.results if result.record is not None),
        ignore_label=spec.ignore_label,
    )
    write_index(path, index)
