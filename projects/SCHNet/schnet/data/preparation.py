"""What the scripts in `datasets/` share: work on pairs in parallel, index them, sum them up."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from schnet.data.index import DatasetIndex, IndexRecord, write_index
from schnet.data.reading import UInt8Array
from schnet.data.specs import DatasetSpec
from schnet.errors import InputError

Task = TypeVar("Task")

# Files handed to a process at once: enough to make the handing over cheap, few enough for a
# progress bar that moves.
_CHUNK = 8
_NAMED_PROBLEMS = 10


class PairStatus(enum.Enum):
    """What became of one image and its labels."""

    WRITTEN = "label maps written"
    KEPT = "label maps already there, verified"
    MISSING = "missing partners"
    UNREADABLE = "unreadable files"
    MISMATCH = "size mismatches"


GOOD = (PairStatus.WRITTEN, PairStatus.KEPT)


@dataclass(frozen=True)
class PairResult:
    """One pair after it was worked on.

    Attributes:
        status: what became of it.
        record: its line of the index; None where it is left out.
        pixel_counts: labelled pixels of each class, empty where it is left out.
        mode: Pillow's mode of the photo, such as RGB; empty where it was not read.
        problem: one sentence that names the file, where it is left out.
    """

    status: PairStatus
    record: IndexRecord | None = None
    pixel_counts: tuple[int, ...] = ()
    mode: str = ""
    problem: str = ""


def count_labels(labels: UInt8Array, num_classes: int) -> tuple[int, ...]:
    """Count the pixels of each class in a label map, ignored ones left out."""
    counts = np.bincount(labels.ravel(), minlength=num_classes)[:num_classes]
    return tuple(int(count) for count in counts)


def run_parallel(
    work: Callable[[Task], PairResult], tasks: Sequence[Task], *, jobs: int, title: str
) -> list[PairResult]:
    """Work on every pair, with a progress bar.

    Args:
        work: a module-level function, or a `functools.partial` of one.
        tasks: what it takes, one a pair.
        jobs: number of processes; 1 works in this one.
        title: shown beside the bar.

    Returns:
        The results in the order of the tasks.
    """
    if jobs == 1 or len(tasks) <= _CHUNK:
        return [work(task) for task in tqdm(tasks, desc=title, unit="image")]
    with ProcessPoolExecutor(jobs) as pool:
        results = pool.map(work, tasks, chunksize=_CHUNK)
        return list(tqdm(results, total=len(tasks), desc=title, unit="image"))


def problems(results: Sequence[PairResult]) -> list[str]:
    """Give the sentences about the pairs that are left out."""
    return [result.problem for result in results if result.status not in GOOD]


def refuse_too_many_problems(results: Sequence[PairResult], max_share: float) -> None:
    """Stop where so many pairs are damaged that the download must be.

    Args:
        results: of all pairs.
        max_share: largest allowed share of pairs that are left out, in [0, 1].

    Raises:
        InputError: the share is exceeded or no pair is left; the first sentences are repeated.
    """
    found = problems(results)
    if len(found) > max_share * len(results) or len(found) == len(results):
        named = "; ".join(found[:_NAMED_PROBLEMS])
        raise InputError(
            f"{len(found)} of {len(results)} pairs cannot be used, more than {max_share:.0%}, and "
            f"no index was written: repair the download or raise --max-damaged ({named})"
        )


def index_results(
    spec: DatasetSpec,
    results: Sequence[PairResult],
    path: Path,
    *,
    image_root: str,
    label_root: str,
) -> None:
    """Write the index of one split from its usable pairs.

    Args:
        spec: the data set.
        results: of the split's pairs, in the split's order.
        path: the index file.
        image_root: folder of the images, absolute or relative to the index's folder.
        label_root: folder of the label maps, likewise.
    """
    good = [result for result in results if result.status in GOOD]
    counts = np.array([result.pixel_counts for result in good], np.int64)
    index = DatasetIndex(
        classes=spec.classes,
        image_root=image_root,
        label_root=label_root,
        pixel_counts=tuple(int(count) for count in counts.reshape(-1, len(spec.classes)).sum(0)),
        records=tuple(result.record for result in good if result.record is not None),
        ignore_label=spec.ignore_label,
    )
    write_index(path, index)


def summary_table(
    spec: DatasetSpec, results_by_split: dict[str, Sequence[PairResult]], notes: dict[str, str]
) -> str:
    """Sum up a preparation as a table to print.

    Args:
        spec: the data set.
        results_by_split: all results of each split.
        notes: further lines, by what stands on their left.

    Returns:
        Lines: counts a split, notes, image modes, and each class's share of the labelled pixels.
    """
    splits = list(results_by_split)
    rows: list[tuple[str, ...]] = [("", *splits)]
    rows.append(("pairs found", *(str(len(results_by_split[split])) for split in splits)))
    statuses = {split: Counter(r.status for r in results_by_split[split]) for split in splits}
    rows.append(
        ("pairs in the index", *(str(sum(statuses[s][good] for good in GOOD)) for s in splits))
    )
    rows.extend(
        (status.value, *(str(statuses[split][status]) for split in splits)) for status in PairStatus
    )
    modes = {split: Counter(r.mode for r in results_by_split[split] if r.mode) for split in splits}
    rows.extend(
        (f"photos of mode {mode}", *(str(modes[split][mode]) for split in splits))
        for mode in sorted(set().union(*modes.values()))
    )
    rows.append(("class (share of pixels)", *splits))
    shares = [_class_shares(spec, results_by_split[split]) for split in splits]
    rows.extend(
        (f"  {value:2d} {name}", *(f"{100 * share[value]:.3f} %" for share in shares))
        for value, name in enumerate(spec.classes)
    )
    width = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:{width}}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]
    return "\n".join([*(f"{left}: {right}" for left, right in notes.items()), *lines])


def _class_shares(spec: DatasetSpec, results: Sequence[PairResult]) -> list[float]:
    counts = np.zeros(len(spec.classes), np.int64)
    for result in results:
        if result.pixel_counts:
            counts += np.array(result.pixel_counts, np.int64)
    total = max(1, int(counts.sum()))
    return [int(count) / total for count in counts]
