"""Check a data set as it is: every photo and label map, counted, and a contact sheet to look at.

    python datasets/validate.py lip                     a published data set below the root
    python datasets/validate.py ccp_val                 one split of it
    python datasets/validate.py my_data                 one's own: a folder with a classes.yaml
    python datasets/validate.py my_data --write-index   and record sizes and class frequencies

The checks are those of the prepare scripts. The summary names every file that cannot be used; the
exit code is 2 where there is one. The sheet shows evenly spaced pairs with the legend.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from schnet.data.custom import CLASSES_FILE, CustomDataset, CustomPaths, open_custom
from schnet.data.label_maps import decode_label
from schnet.data.preparation.command import add_jobs_argument, parse_count, parse_share
from schnet.data.preparation.pairs import GOOD, PairResult, PairRules, PairTask
from schnet.data.preparation.report import report
from schnet.data.preparation.splits import check_pairs, problems
from schnet.data.preparation.validation import (
    custom_tasks,
    published_tasks,
    write_custom_index,
)
from schnet.data.reading import parse_image
from schnet.data.specs import SPECS, DatasetSpec
from schnet.errors import InputError, exit_on_input_error
from schnet.visualization import SheetRow, contact_sheet, evenly_spaced, save_png

Tasks = Mapping[str, Sequence[PairTask]]
Results = Mapping[str, Sequence[PairResult]]


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        spec: its labels.
        tasks: pairs of each split.
        custom: the data set, where it is one's own.
    """

    spec: DatasetSpec
    tasks: Tasks
    custom: CustomDataset | None = None


def find_subject(text: str, paths: CustomPaths, root: Path) -> Subject:
    """Find the data set that the command line means.

    Args:
        text: name of a published data set or of one of its splits, a folder with a
            `classes.yaml`, or such a file.
        paths: where the rest of one's own data set lies.
        root: folder of the published data sets' folders.

    Raises:
        InputError: it is none of these, or its files are not there.
    """
    name, _, split = text.rpartition("_")
    if text in SPECS:
        return Subject(SPECS[text], published_tasks(SPECS[text], root))
    if name in SPECS and split in SPECS[name].splits:
        tasks = published_tasks(SPECS[name], root)
        if split not in tasks:
            raise InputError(
                f"the data set {name} in {root / SPECS[name].folder} has no {split} split: "
                f"{SPECS[name].remedy}"
            )
        return Subject(SPECS[name], {split: tasks[split]})
    if not Path(text).exists():
        raise InputError(
            f"{text!r} is neither a data set ({', '.join(SPECS)}) nor a folder with a "
            f"{CLASSES_FILE}: correct the name"
        )
    data = open_custom(paths)
    return Subject(data.spec, custom_tasks(data), data)


@dataclass(frozen=True)
class Finding:
    """What the checks of a data set found.

    Attributes:
        results: of each split's pairs.
        summary: the report to print.
    """

    results: Results
    summary: str

    @property
    def problems(self) -> list[str]:
        """A sentence for every pair that cannot be used."""
        return [problem for found in self.results.values() for problem in problems(found)]


def validate(
    subject: Subject, *, jobs: int = 1, rows: int = 12, sheet: Path, write_index: bool = False
) -> Finding:
    """Check all pairs and draw the sheet.

    Args:
        subject: the data set.
        jobs: number of processes.
        rows: pairs on the sheet; 0 draws none.
        sheet: the PNG; replaced where it exists.
        write_index: record one's own data set in indexes, where all its pairs can be used.
    """
    spec = subject.spec
    rules = PairRules(
        len(spec.classes), spec.palette, spec.ignore_label, refuse_colors=spec.refuse_colors
    )
    results = {
        split: check_pairs(tasks, rules, jobs=jobs, title=f"{spec.name} {split}")
        for split, tasks in subject.tasks.items()
    }
    notes = {}
    chosen = _choose(subject.tasks, results, rows)
    if chosen:
        picture = contact_sheet(
            [_read_row(task, result) for task, result in chosen],
            spec.classes,
            spec.palette,
            ignore_label=spec.ignore_label,
        )
        save_png(sheet, picture)
        notes["contact sheet"] = str(sheet)
    if write_index and subject.custom is not None:
        notes["index"] = _write_indexes(subject.custom, subject.tasks, results)
    return Finding(results, report(spec, results, notes))


def _choose(tasks: Tasks, results: Results, rows: int) -> list[tuple[PairTask, PairResult]]:
    """Choose evenly spaced pairs among the usable ones of all splits."""
    usable = [
        pair
        for split in tasks
        for pair in zip(tasks[split], results[split], strict=True)
        if pair[1].status in GOOD
    ]
    return [usable[number] for number in evenly_spaced(len(usable), rows)]


def _read_row(task: PairTask, result: PairResult) -> SheetRow:
    assert task.image is not None and result.record is not None
    image = parse_image(task.image.read("image"), task.image.path)
    photo = image.matching((result.record.height, result.record.width)).decode()
    truth = None
    if task.label is not None:
        truth = decode_label(task.label.read("label map"), task.label.path)
    return SheetRow(photo, truth, None)


def _write_indexes(custom: CustomDataset, tasks: Tasks, results: Results) -> str:
    if any(problems(found) for found in results.values()):
        return "not written, since some pairs cannot be used"
    paths = [write_custom_index(custom, s, tasks[s], results[s]) for s in results]
    return ", ".join(str(path) for path in paths)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Check every photo and label map of a data set, and draw a contact sheet."
    )
    parser.add_argument(
        "dataset",
        metavar="NAME_OR_FOLDER",
        help=f"a data set ({', '.join(SPECS)}), one split of it (lip_val), or the folder of your "
        f"own with its {CLASSES_FILE}",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("DETECTRON2_DATASETS") or "datasets"),
        help="folder of the published data sets' folders (default: $DETECTRON2_DATASETS, datasets)",
    )
    own = parser.add_argument_group("your own data set, as in DATASETS.CUSTOM")
    own.add_argument("--name", default="custom", help="its name (default: %(default)s)")
    for option in ("images", "labels", "val-images", "val-labels"):
        own.add_argument(f"--{option}", default="", metavar="FOLDER")
    own.add_argument("--val-share", type=parse_share, default=0.1, help="default: %(default)s")
    own.add_argument(
        "--write-index",
        action="store_true",
        help=f"write <name>_<split>.json beside the {CLASSES_FILE}, which class weights need",
    )
    parser.add_argument(
        "--sheet", type=Path, metavar="PNG", help="default: output/validate/<dataset>.png"
    )
    parser.add_argument(
        "--rows",
        type=partial(parse_count, least=0),
        default=12,
        help="pairs on it; 0 draws none (default: %(default)s)",
    )
    add_jobs_argument(parser)
    return parser


def _folder_name(path: Path) -> str:
    """Name the folder of one's own data set, also where its `classes.yaml` is given."""
    return (path.parent if path.is_file() else path).resolve().name


def _refuse_sheet(sheet: Path, tasks: Tasks) -> None:
    """Refuse a folder, another kind of file, and a file of the data set."""
    if sheet.suffix.lower() != ".png" or sheet.is_dir():
        raise InputError(f"--sheet {sheet} is no name of a PNG: give one, such as sheet.png")
    files = (
        file for found in tasks.values() for task in found for file in (task.image, task.label)
    )
    if sheet.exists() and any(file and os.path.samefile(file.path, sheet) for file in files):
        raise InputError(f"--sheet {sheet} is a file of the data set: give another name")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the data set that the command line names and print the summary.

    Raises:
        InputError: bad input, also where only some pairs cannot be used, after the summary.
    """
    options = _argument_parser().parse_args(arguments)
    paths = CustomPaths(
        options.dataset,
        options.name,
        options.images,
        options.labels,
        options.val_images,
        options.val_labels,
        options.val_share,
    )
    subject = find_subject(options.dataset, paths, options.root)
    if options.write_index and subject.custom is None:
        raise InputError(
            f"--write-index is for a data set of your own: the index of {subject.spec.name} is "
            "written by its prepare script"
        )
    name = _folder_name(Path(options.dataset)) if subject.custom else options.dataset
    sheet = options.sheet or Path("output", "validate", f"{name}.png")
    _refuse_sheet(sheet, subject.tasks)
    finding = validate(
        subject,
        jobs=options.jobs,
        rows=options.rows,
        sheet=sheet,
        write_index=options.write_index,
    )
    sys.stdout.write(finding.summary + "\n")
    sys.stdout.flush()
    if finding.problems:
        total = sum(len(found) for found in finding.results.values())
        raise InputError(
            f"{len(finding.problems)} of {total} pairs of {options.dataset} cannot be used, as "
            "listed above: repair or remove them"
        )


if __name__ == "__main__":
    with exit_on_input_error():
        main()
