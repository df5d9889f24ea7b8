"""Evaluate part instances and persons as CIHP's instance level does: AP^r, AP^p, PCP.

    python tools/evaluate_instances.py --pred results --gt datasets/CIHP --output output/instances

`--gt` is the folder that CIHP's archive unpacks to, its `Validation` folder, or another folder with
`Category_ids`, `Human_ids` and `Instance_ids` (with or without lists). Where `Instance_ids` is
absent, or with `--gt-from-maps`, the part instances are made of the other two.

`--pred` is a folder with `instance_parsing` (a PNG of part ids 1..n and a .txt with a line
`class score` for each, as CIHP's server takes them) and, for AP^p and PCP, `instance_segmentation`
(a PNG of person ids 1..m and a .txt with a line of each one's score). Where `instance_parsing` is
absent, the parts are made of `global_parsing` (PNGs of classes) and `instance_segmentation`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from schnet.data.preparation.command import add_jobs_argument
from schnet.data.specs import SPECS
from schnet.errors import InputError, exit_on_input_error
from schnet.evaluation.instance_folders import find_prediction, find_truth, pair_images
from schnet.evaluation.instance_report import REPORT_FILES, REPORT_KEYS, report, write_results
from schnet.evaluation.instances import evaluate_instances
from schnet.evaluation.report import refuse_foreign_files


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Evaluate part instances and persons: AP^r, AP^p and PCP, as on CIHP."
    )
    parser.add_argument("--pred", type=Path, required=True, help="folder of the predictions")
    parser.add_argument("--gt", type=Path, required=True, help="folder of the ground truth")
    parser.add_argument(
        "--dataset",
        choices=sorted(SPECS),
        default="cihp",
        help="whose classes the files have (default: %(default)s)",
    )
    parser.add_argument(
        "--gt-from-maps",
        action="store_true",
        help="make the true instances of Category_ids and Human_ids even if there is Instance_ids",
    )
    parser.add_argument(
        "--output", type=Path, help="folder for instances.json, its tables and a picture"
    )
    add_jobs_argument(parser)
    return parser


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse a file, a folder that is evaluated, and one where others' files would be replaced."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file: give a folder")
    if output.resolve() in {folder.resolve() for folder in inputs}:
        raise InputError(f"--output {output} is a folder that is evaluated: give another one")
    refuse_foreign_files(output, REPORT_FILES, REPORT_KEYS)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    truth, prediction = find_truth(args.gt, args.gt_from_maps), find_prediction(args.pred)
    if args.output is not None:
        _check_output(args.output, [*truth.by_role.values(), *prediction.by_role.values()])
    spec = SPECS[args.dataset]
    tasks = pair_images(truth, prediction)
    results = evaluate_instances(
        tasks, len(spec.classes), ignore_label=spec.ignore_label, jobs=args.jobs
    )
    print(report(spec.name, spec.classes, results))
    if args.output is not None:
        for path in write_results(args.output, spec.name, spec.classes, results):
            print(f"wrote {path}")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
