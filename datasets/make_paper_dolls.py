"""Renders 'paper dolls': a small labelled data set in LIP's official layout, with all 20 labels.

Cut-paper people in varied pose, view and clothing before cluttered backgrounds. It exercises the
whole path of this repository without a download; it is a benchmark of nothing else.

Left and right are the person's own: seen from the front the person's left arm is on the image's
right, seen from the back on its left. LIP has no label for the neck: here neck and the skin in a
neckline are Face (13), as the face and the ears are. The hand belongs to its arm unless a glove
covers it; belts belong to the garment they are worn on.

Example:
    python datasets/make_paper_dolls.py --output datasets/dolls --train 400 --val 100 --seed 0
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from paper_dolls.sheet import write_sheet
from paper_dolls.writer import Settings, write_data_set

from schnet.errors import InputError, exit_on_input_error

MIN_SIDE, MAX_SIDE = 32, 2048
logger = logging.getLogger("make_paper_dolls")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line.

    Raises:
        InputError: a number is out of its range.
    """
    parser = argparse.ArgumentParser(
        description="Render the paper dolls data set in LIP's layout, with an index of each split."
    )
    parser.add_argument("--output", type=Path, required=True, help="new, empty or earlier folder")
    parser.add_argument("--train", type=int, default=400, help="number of training pictures")
    parser.add_argument("--val", type=int, default=100, help="number of validation pictures")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same files")
    parser.add_argument("--height", type=int, default=256, help="usual height, pixels (±12 %%)")
    parser.add_argument("--width", type=int, default=160, help="usual width, pixels (×0.65..1.4)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sheet", type=Path, help="also draw a sheet of 24 samples to this PNG")
    options = parser.parse_args(arguments)
    limits = {
        "train": (1, 99_999),
        "val": (1, 99_999),
        "seed": (0, 2**63 - 1),
        "height": (MIN_SIDE, MAX_SIDE),
        "width": (MIN_SIDE, MAX_SIDE),
        "processes": (1, 1024),
    }
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if not low <= value <= high:
            raise InputError(f"--{name} is {value}: give a number from {low} to {high}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: the command line's words; None for the process's own.

    Raises:
        InputError: see `parse_arguments` and `write_data_set`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse_arguments(arguments)
    settings = Settings(options.seed, options.height, options.width)
    sizes = {"train": options.train, "val": options.val}
    indexes = write_data_set(options.output, settings, sizes, options.processes)
    for split, index in indexes.items():
        logger.info("%s: %d dolls, %s", split, len(index.records), options.output / f"{split}.json")
    if options.sheet is not None:
        write_sheet(options.sheet, settings)
        logger.info("sheet: %s", options.sheet)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
