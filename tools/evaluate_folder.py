"""Score a folder of predicted label maps against a folder of true ones.

    python tools/evaluate_folder.py output/lip/evaluation/lip_val/predictions \
        datasets/lip/TrainVal_parsing_annotations/val_segmentations --dataset lip

Both hold index PNGs of one size and name, at any depth. The numbers are those of
`train_net.py --eval-only`, to the digit; `--output` writes its report as well.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from schnet.data.catalog import SPECS
from schnet.data.class_list import read_class_list
from schnet.data.custom import CLASSES_FILE
from schnet.data.labels import IGNORE_LABEL
from schnet.errors import InputError, exit_on_input_error
from schnet.evaluation.boundary import DEFAULT_TOLERANCE
from schnet.evaluation.folders import CountSettings, FolderMatch, count_pairs, match_folders
from schnet.evaluation.per_image import write_scores
from schnet.evaluation.report import EvaluationReport, refuse_foreign_files

NAMED_FILES = 5


def evaluate_folder(args: argparse.Namespace) -> EvaluationReport:
    """Match, count and, where asked for, write the report.

    Args:
        args: the command line's.

    Raises:
        InputError: the folders do not match, a file cannot be used, no pixel is labelled, or
            `--output` cannot be written to.
    """
    _check_numbers(args)
    if args.output is not None:
        _check_output(args.output, (args.predictions, args.truths))
    match = match_folders(args.predictions, args.truths)
    if match.extra:
        print(f"no label map for {len(match.extra)} predictions, not counted: {_some(match.extra)}")
    if match.missing and not args.allow_missing:
        raise InputError(
            f"{len(match.missing)} of the {len(match.missing) + len(match.pairs)} label maps of "
            f"{args.truths} have no prediction in {args.predictions} ({_some(match.missing)}): "
            "predict them, or give --allow-missing to leave them out"
        )
    name, classes = _label_list(args)
    settings = CountSettings(len(classes), IGNORE_LABEL, args.boundary_tolerance)
    counted = count_pairs(match.pairs, settings, jobs=args.jobs)
    if not counted.counts.confusion.counts.any():
        raise InputError(f"no pixel of the label maps in {args.truths} is labelled: check them")
    report = EvaluationReport(name, _protocol(args, match), classes, counted.counts)
    if args.output is not None:
        report.write(args.output)
        write_scores(args.output, counted.scores)
    return report


def _label_list(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """Give the name of the labels and the labels: a published data set's, or one's own."""
    if args.classes is None:
        return args.dataset, SPECS[args.dataset].classes
    file = args.classes / CLASSES_FILE if args.classes.is_dir() else args.classes
    return str(args.classes), read_class_list(file).names


def _protocol(args: argparse.Namespace, match: FolderMatch) -> str:
    line = f"label maps of {args.predictions} as they are, against {args.truths}"
    if not match.missing:
        return line
    return f"{line}; {len(match.missing)} label maps without a prediction are not counted"


def _check_numbers(args: argparse.Namespace) -> None:
    if args.jobs < 1:
        raise InputError(f"--jobs is {args.jobs}: it must be at least 1")
    if args.boundary_tolerance < 0:
        raise InputError(
            f"--boundary-tolerance is {args.boundary_tolerance}: it must be at least 0 pixels"
        )


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file: give a folder")
    for folder in inputs:
        # The picture would be taken for a label map the next time.
        if folder.resolve() in (output.resolve(), *output.resolve().parents):
            raise InputError(f"--output {output} lies in {folder}: give a folder outside of it")
    refuse_foreign_files(output)


def _some(paths: Sequence[Path]) -> str:
    named = ", ".join(str(path) for path in paths[:NAMED_FILES])
    return named if len(paths) <= NAMED_FILES else f"{named}, ..."


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Score predicted label maps (index PNGs) against the true ones.",
        epilog="Files are matched by name without ending, at all depths.",
    )
    parser.add_argument("predictions", type=Path, metavar="PRED", help="folder of predictions")
    parser.add_argument("truths", type=Path, metavar="GT", help="folder of true label maps")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--dataset", choices=sorted(SPECS), help="whose labels they are")
    labels.add_argument(
        "--classes",
        type=Path,
        metavar="YAML",
        help="classes.yaml of your own labels, or its folder",
    )
    parser.add_argument("--output", type=Path, help="folder to write the report to")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave label maps without a prediction out, instead of stopping",
    )
    parser.add_argument(
        "--boundary-tolerance",
        type=int,
        default=DEFAULT_TOLERANCE,
        metavar="PIXELS",
        help=f"of the boundary F-score (default: {DEFAULT_TOLERANCE})",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes to work with"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and print the table.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    print(evaluate_folder(_argument_parser().parse_args(argv)).text())


if __name__ == "__main__":
    with exit_on_input_error():
        main()
