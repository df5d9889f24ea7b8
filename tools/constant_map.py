"""Measure the best constant map: what a data set gives to a parser that never looks at the photo.

    python tools/constant_map.py --dataset ccp

The map holds the most frequent label of the train split at each position, positions taken relative
to height and width. It is evaluated on the val split like any prediction, at original resolution.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from schnet.data.catalog import SPECS, load_registered, register_datasets
from schnet.data.label_maps import read_label
from schnet.data.reading import open_image
from schnet.errors import exit_on_input_error
from schnet.evaluation.parsing_evaluation import ParsingEvaluator
from schnet.visualization import colorize, save_png

DEFAULT_GRID = (400, 300)

ByteArray = npt.NDArray[np.uint8]


def most_frequent_labels(
    dataset_dicts: Sequence[Mapping[str, Any]],
    num_classes: int,
    ignore_label: int = 255,
    grid: tuple[int, int] = DEFAULT_GRID,
) -> ByteArray:
    """Count the labels at each relative position and keep the most frequent.

    Args:
        dataset_dicts: dicts with `sem_seg_file_name`; others are passed over.
        num_classes: K.
        ignore_label: label of pixels that do not count.
        grid: height and width of the map that positions are counted in.

    Returns:
        Labels of size `grid`; the smallest label where several are as frequent, hence 0 where
        no image has one.

    Raises:
        InputError: a label map cannot be read or holds an impossible label.
    """
    counts = np.zeros((num_classes, *grid), dtype=np.int32)
    labels_of_rows = np.arange(num_classes, dtype=np.uint8)[:, None, None]
    for entry in tqdm(dataset_dicts, desc="counting", unit="image"):
        path = entry.get("sem_seg_file_name")
        if path is not None:
            labels = read_label(path, num_classes, ignore_label)
            counts += _resize_labels(labels, grid) == labels_of_rows
    return counts.argmax(axis=0).astype(np.uint8)


def evaluate_map(
    constant: ByteArray, dataset_dicts: Sequence[Mapping[str, Any]], evaluator: ParsingEvaluator
) -> dict[str, float]:
    """Evaluate one map, stretched to each image's size, as the prediction for all.

    Args:
        constant: labels (h, w).
        dataset_dicts: dicts with `sem_seg_file_name`.
        evaluator: a fresh one.

    Returns:
        The evaluator's metrics, in percent.

    Raises:
        InputError: an image has no labels, or they cannot be read.
    """
    for entry in tqdm(dataset_dicts, desc="evaluating", unit="image"):
        evaluator.add_labels(entry, _resize_labels(constant, _image_size(entry)))
    results = evaluator.evaluate()
    assert results is not None, "one process evaluates, and it is the main one"
    return results["sem_seg"]


def _image_size(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Give height and width, from the file's header where no index recorded them."""
    if "height" in entry and "width" in entry:
        return entry["height"], entry["width"]
    image = open_image(entry["file_name"])
    return image.height, image.width


def _resize_labels(labels: ByteArray, size: tuple[int, int]) -> ByteArray:
    resized = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the best constant map of a data set.")
    parser.add_argument("--dataset", required=True, choices=sorted(SPECS), help="its short name")
    parser.add_argument("--png", help="also draw the map into this PNG")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    # The evaluator logs the protocol and the per-class table.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    register_datasets()
    train, val = f"{args.dataset}_train", f"{args.dataset}_val"
    metadata = MetadataCatalog.get(train)
    num_classes = len(metadata.stuff_classes)
    constant = most_frequent_labels(load_registered([train]), num_classes, metadata.ignore_label)
    evaluator = ParsingEvaluator(
        val,
        num_classes,
        metadata.stuff_classes,
        metadata.ignore_label,
        distributed=False,
        protocol="one label map for all images, stretched to the original size by nearest",
    )
    results = evaluate_map(constant, load_registered([val]), evaluator)
    if args.png:
        save_png(args.png, colorize(constant, metadata.stuff_colors, metadata.ignore_label))
    print(f"best constant map of {train} on {val}: mIoU {results['mIoU']:.2f}, ", end="")
    print(f"pixel accuracy {results['pACC']:.2f} %")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
