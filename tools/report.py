"""Make or refresh the report of a training run: curves, classes, confusions, predictions.

    python tools/report.py output/lip [--weights output/lip/model_best.pth] [KEY VALUE ...]

Writes OUTPUT_DIR/report.html, one page that needs no other file. A training makes it at its end;
this makes it at any time, of a run that goes on or was killed too. The best and worst images are
predicted with --weights, or else with the run's model_best.pth where it has one.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from schnet.engine.report_hook import best_weights, draw_report
from schnet.errors import InputError, exit_on_input_error
from schnet.reporting.report import REPORT_FILE, refuse_foreign_report, write_report
from schnet.run_config import CONFIG_FILE
from schnet.setup import load_model_config

logger = logging.getLogger("report")


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make the report.html of a training run.")
    parser.add_argument("folder", type=Path, help="the run's OUTPUT_DIR")
    parser.add_argument(
        "--weights",
        type=Path,
        help="checkpoint that predicts the best and worst images (default: model_best.pth of the "
        "folder, where it is there)",
    )
    parser.add_argument(
        "--no-model",
        action="store_true",
        help="build no model: the best and worst images are listed without pictures",
    )
    parser.add_argument("opts", nargs="*", help="overrides of the run's config: KEY VALUE ...")
    return parser


def _run_config(folder: Path, opts: Sequence[str]) -> CfgNode | None:
    """The run's config, its data sets registered; None where the folder holds none."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        return None
    return load_model_config([file], [*opts, "OUTPUT_DIR", str(folder)])


def make_report(folder: Path, weights: Path | None, use_model: bool, opts: Sequence[str]) -> Path:
    """Make the report of a run's folder.

    Args:
        folder: OUTPUT_DIR.
        weights: checkpoint to predict with; None takes the run's best one where it has one.
        use_model: False builds no model.
        opts: overrides of the run's config.

    Returns:
        The file.

    Raises:
        InputError: the folder, its config or the weights cannot be used, or a file of the
            report's name is none.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the OUTPUT_DIR of a run")
    if weights is not None and not weights.is_file():
        raise InputError(f"--weights names {weights}, which is no file: give a checkpoint")
    refuse_foreign_report(folder / REPORT_FILE)  # before a large model is built
    cfg = _run_config(folder, opts)
    if weights is not None and cfg is None:
        raise InputError(
            f"{folder} has no {CONFIG_FILE}, without which no model can be built: leave --weights "
            "out, or restore it"
        )
    if cfg is None or not use_model:
        return write_report(folder)
    chosen = weights or best_weights(cfg)
    if chosen is None:
        logger.warning("%s has no model_best.pth yet: the report has no predictions", folder)
        return write_report(folder)
    return draw_report(cfg, build_model(cfg), chosen)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    path = make_report(args.folder, args.weights, not args.no_model, args.opts)
    print(f"wrote {path}")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
