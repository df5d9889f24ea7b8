"""Draw photo, truth and prediction of a data set's images into one PNG, with a legend.

    python tools/contact_sheet.py --config-file projects/SCHNet/configs/ccp.yaml \
        --weights output/ccp/model_best.pth --output sheet.png --rows 12 [KEY VALUE ...]

The images are evenly spaced over the first of DATASETS.TEST.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from schnet.contact_sheet import prediction_sheet
from schnet.errors import InputError, exit_on_input_error
from schnet.inference import Parser
from schnet.setup import load_model_config
from schnet.visualization import save_png


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Draw photo | truth | prediction for evenly spaced images of DATASETS.TEST[0]."
    )
    parser.add_argument(
        "--config-file",
        action="append",
        required=True,
        metavar="YAML",
        help="config of the model; repeat for files on top, such as an ablation's",
    )
    parser.add_argument("--weights", required=True, help="checkpoint of the trained model")
    parser.add_argument("--output", required=True, help="PNG to write; replaced where it exists")
    parser.add_argument("--rows", type=int, default=12, help="images to show (default: 12)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides: KEY VALUE ...")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    if not args.output.lower().endswith(".png"):
        raise InputError(f"--output is {args.output}: the sheet is a PNG, so end its name in .png")
    cfg = load_model_config(args.config_file, ["MODEL.WEIGHTS", args.weights, *args.opts])
    sheet = prediction_sheet(Parser.from_config(cfg), cfg.DATASETS.TEST[0], args.rows)
    save_png(args.output, sheet)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
