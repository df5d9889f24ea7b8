"""Evaluation of label maps that are files already: a folder of predictions against one of truths.

It counts with what `ParsingEvaluator` counts with, so that the PNGs which an evaluation wrote give
the numbers of that evaluation, to the digit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from schnet.data.file_names import files_below
from schnet.data.label_maps import read_label
from schnet.data.processes import process_map
from schnet.errors import InputError
from schnet.evaluation.boundary import DEFAULT_TOLERANCE
from schnet.evaluation.confusion import Counts
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.instance_files import read_predicted_labels
from schnet.evaluation.per_image import ImageScore, score_image, sort_scores

ENDING = ".png"
# Pairs that a process counts at once.
_CHUNK = 16


@dataclass(frozen=True)
class FolderPair:
    """A predicted label map and the true one of its name."""

    prediction: Path
    truth: Path


@dataclass(frozen=True)
class FolderMatch:
    """Which files of two folders belong together.

    Attributes:
        pairs: in the order of their names.
        missing: label maps without a prediction.
        extra: predictions without a label map.
    """

    pairs: tuple[FolderPair, ...]
    missing: tuple[Path, ...]
    extra: tuple[Path, ...]


@dataclass(frozen=True)
class CountSettings:
    """What label maps are counted by.

    Attributes:
        num_classes: K.
        ignore_label: true label whose pixels do not count.
        boundary_tolerance: in pixels.
    """

    num_classes: int
    ignore_label: int = 255
    boundary_tolerance: int = DEFAULT_TOLERANCE


@dataclass(frozen=True)
class FolderCounts:
    """What was counted of two folders.

    Attributes:
        counts: of all pairs.
        scores: of each, by the name of its prediction.
    """

    counts: ParsingCounts
    scores: list[ImageScore]


def match_folders(predictions: Path, truths: Path) -> FolderMatch:
    """Find the PNGs of two folders, at all depths, and match them by name without ending.

    Sub folders do not matter, so that a flat folder of predictions fits a data set's tree; only
    where a name occurs twice in one of the folders do the paths below the folders have to match.

    Args:
        predictions: folder of predicted label maps.
        truths: folder of the true ones.

    Raises:
        InputError: a folder does not exist or holds no PNG, two of its files have one name, or
            nothing matches.
    """
    found = {folder: _png_files(folder) for folder in (predictions, truths)}
    names_suffice = all(
        max(Counter(path.stem for path in files).values()) == 1 for files in found.values()
    )
    by_name = {folder: _by_name(files, folder, names_suffice) for folder, files in found.items()}
    predicted, true = by_name[predictions], by_name[truths]
    match = FolderMatch(
        pairs=tuple(FolderPair(predicted[n], true[n]) for n in sorted(predicted.keys() & true)),
        missing=tuple(true[name] for name in sorted(true.keys() - predicted.keys())),
        extra=tuple(predicted[name] for name in sorted(predicted.keys() - true.keys())),
    )
    if not match.pairs:
        raise InputError(
            f"no PNG of {predictions} has the name of one in {truths}, such as "
            f"{match.extra[0].name} and {match.missing[0].name}: give the two folders of one split"
        )
    return match


def count_pairs(
    pairs: Sequence[FolderPair], settings: CountSettings, *, jobs: int = 1
) -> FolderCounts:
    """Count pairs of label maps, with a progress bar.

    Args:
        pairs: the files.
        settings: what to count by.
        jobs: number of processes; 1 works in this one. The result is the same for any.

    Raises:
        InputError: a file is unreadable or holds an impossible label, two sizes differ, or a
            process was killed.
    """
    total, scores = _new_counts(settings), list[ImageScore]()
    vector = total.as_vector()
    chunks = [pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK)]
    work = partial(_count_chunk, settings=settings)
    with tqdm(total=len(pairs), desc="counting", unit="image") as bar:
        with process_map(work, chunks, jobs=jobs) as results:
            for counted, own in results:
                vector = vector + counted
                scores += own
                bar.update(len(own))
    total.replace(vector)
    return FolderCounts(total, sort_scores(scores))


def _png_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give a folder of label maps")
    paths = files_below(folder)
    files = [path for path in paths if path.suffix.lower() == ENDING and path.is_file()]
    if not files:
        raise InputError(f"the folder {folder} holds no PNG: give a folder of label maps")
    return files


def _by_name(files: Sequence[Path], folder: Path, names_suffice: bool) -> dict[str, Path]:
    """Key files by their name, or by their path below the folder, without ending."""
    keyed: dict[str, Path] = {}
    for path in files:
        inside = path.relative_to(folder).with_suffix("")
        other = keyed.setdefault(inside.name if names_suffice else inside.as_posix(), path)
        if other != path:
            raise InputError(f"{other} and {path} have one name: take one of them out of {folder}")
    return keyed


def _new_counts(settings: CountSettings) -> ParsingCounts:
    return ParsingCounts(settings.num_classes, settings.ignore_label, settings.boundary_tolerance)


def _count_chunk(
    pairs: Sequence[FolderPair], settings: CountSettings
) -> tuple[Counts, list[ImageScore]]:
    counts, scores = _new_counts(settings), list[ImageScore]()
    for pair in pairs:
        truth = read_label(pair.truth, settings.num_classes, settings.ignore_label)
        prediction = read_predicted_labels(pair.prediction, settings.num_classes)
        if prediction.shape != truth.shape:
            (height, width), (true_height, true_width) = prediction.shape, truth.shape
            raise InputError(
                f"the prediction {pair.prediction} is {width}x{height} pixels (width x height) but "
                f"its label map {pair.truth} is {true_width}x{true_height}: predictions must have "
                "the original size"
            )
        own = counts.update(truth, prediction)
        scores.append(score_image(pair.truth.stem, str(pair.prediction), own))
    return counts.as_vector(), scores
