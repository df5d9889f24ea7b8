"""Benchmark of the evaluation: Detectron2's `SemSegEvaluator` against ours, on one set of pictures.

Both sides see the same predictions in the same run, a few images at a time and taking turns, and
their mIoU is compared in every row. Predictions are made as a parser makes them: logits at a
quarter of the size, from a label map that is turned, scaled, mistaken in places and noisy,
upsampled bilinearly to the label map's size. Label maps are a data set's, or are drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator, sem_seg_evaluation
from tabulate import tabulate
from tqdm import tqdm

from schnet.data.catalog import load_registered, register_datasets
from schnet.data.label_maps import read_label, write_label_png
from schnet.data.reading import UInt8Array
from schnet.data.specs import SPECS, DatasetSpec
from schnet.errors import InputError
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.parsing_evaluation import ParsingEvaluator

TEMPORARY_NAME = "benchmark_evaluation"
LOGIT_STRIDE = 4
# Predictions that a side counts before the other has its turn: few, so that a busy machine slows
# both alike, and more than one, since neither finds the other's data in the cache in earnest.
TURN = 10
DRAWN_MAPS = 50
DRAWN_SIZE = (832, 550)


@dataclass(frozen=True)
class Prediction:
    """One image, as the two sides take it."""

    entry: dict[str, Any]
    truth: UInt8Array
    logits: torch.Tensor
    indices: torch.Tensor
    labels: UInt8Array


class Side(Protocol):
    """One of the two that are compared."""

    def ready(self, prediction: Prediction) -> contextlib.AbstractContextManager[Any]:
        """Give a function without arguments that counts the prediction; it alone is timed."""

    def mean_iou(self) -> float:
        """Give the mIoU of all that was counted, in percent."""


class Detectron2:
    """`SemSegEvaluator` as it is, or relieved of some of its work; its code is not changed."""

    def __init__(self, *, in_memory: bool = False, encode: bool = True) -> None:
        """Make the evaluator.

        Args:
            in_memory: its argmax and its label file come ready from memory, so that what
                `process` does with them is left.
            encode: let it make the run lengths (RLE) of every prediction for a results file,
                which it does whether or not one is written.
        """
        self._evaluator = SemSegEvaluator(TEMPORARY_NAME, distributed=False)
        self._evaluator.reset()
        self._in_memory = in_memory
        if not encode:
            self._evaluator.encode_json_sem_seg = lambda *args: []

    @contextlib.contextmanager
    def ready(self, prediction: Prediction) -> Iterator[Callable[[], None]]:
        """See `Side`."""
        scores: Any = prediction.logits
        with contextlib.ExitStack() as stack:
            # Detectron2 0.6 makes an array of a tensor in a way that NumPy 2 warns of.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", DeprecationWarning)
            if self._in_memory:
                scores = SimpleNamespace(argmax=lambda dim: prediction.indices)
                file = contextlib.nullcontext(prediction.truth)
                for name, function in (("PathManager", lambda *args: file), ("Image", _itself)):
                    stand_in = SimpleNamespace(open=function)
                    stack.enter_context(mock.patch.object(sem_seg_evaluation, name, stand_in))
            inputs, outputs = [prediction.entry], [{"sem_seg": scores}]
            yield lambda: self._evaluator.process(inputs, outputs)

    def mean_iou(self) -> float:
        """See `Side`."""
        return float(self._evaluator.evaluate()["sem_seg"]["mIoU"])


class OurCounts:
    """Our counting, from label maps in memory."""

    def __init__(self, spec: DatasetSpec, boundary_tolerance: int | None) -> None:
        """Make the counts; a tolerance of None leaves the boundaries out."""
        self._counts = ParsingCounts(len(spec.classes), spec.ignore_label, boundary_tolerance)

    @contextlib.contextmanager
    def ready(self, prediction: Prediction) -> Iterator[Callable[[], None]]:
        """See `Side`."""
        yield lambda: self._counts.update(prediction.truth, prediction.labels)

    def mean_iou(self) -> float:
        """See `Side`."""
        return 100 * self._counts.confusion.metrics().mean_iou


class OurEvaluator:
    """`ParsingEvaluator`, from logits and label files."""

    def __init__(self, spec: DatasetSpec, boundary_tolerance: int | None) -> None:
        """Make the evaluator; a tolerance of None leaves the boundaries out."""
        self._evaluator = ParsingEvaluator(
            TEMPORARY_NAME,
            len(spec.classes),
            spec.classes,
            spec.ignore_label,
            distributed=False,
            boundary_tolerance=boundary_tolerance,
        )

    @contextlib.contextmanager
    def ready(self, prediction: Prediction) -> Iterator[Callable[[], None]]:
        """See `Side`."""
        inputs, outputs = [prediction.entry], [{"sem_seg": prediction.logits}]
        yield lambda: self._evaluator.process(inputs, outputs)

    def mean_iou(self) -> float:
        """See `Side`."""
        results = self._evaluator.evaluate()
        assert results is not None, "one process evaluates, and it is the main one"
        return results["sem_seg"]["mIoU"]


class Contest:
    """One row of the table: two sides, and the time that each has taken."""

    def __init__(self, title: str, theirs: Side, ours: Side) -> None:
        """Start the clocks at zero."""
        self.title = title
        self._sides = (theirs, ours)
        self._seconds = [0.0, 0.0]

    def step(self, predictions: Sequence[Prediction], *, ours_first: bool) -> None:
        """Let both sides count some predictions."""
        for index in (1, 0) if ours_first else (0, 1):
            for prediction in predictions:
                with self._sides[index].ready(prediction) as count:
                    started = time.perf_counter()
                    count()
                    self._seconds[index] += time.perf_counter() - started

    def row(self, images: int) -> list[str]:
        """Give the row's cells."""
        theirs, ours = (1000 * seconds / images for seconds in self._seconds)
        their_miou, our_miou = (side.mean_iou() for side in self._sides)
        return [
            self.title,
            f"{theirs:.3g}",
            f"{ours:.3g}",
            f"{theirs / ours:.3g} x",
            f"{abs(their_miou - our_miou):.0e}",
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments to a command line."""
    parser.add_argument("--images", type=int, default=500, help="predictions (default: 500)")
    parser.add_argument(
        "--dataset", default="ccp", choices=sorted(SPECS), help="its labels (default: ccp)"
    )
    parser.add_argument(
        "--root",
        help="folder of the data sets' folders, to take label maps from (default: draw some)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the predictions (default: 0)")


def run(args: argparse.Namespace) -> str:
    """Run the benchmark.

    Args:
        args: what `add_arguments` added.

    Returns:
        A line on the conditions, and a markdown table.

    Raises:
        InputError: a number is impossible, or the data set is not to be had.
    """
    if args.images < 1:
        raise InputError(f"--images is {args.images}: it must be at least 1")
    spec = SPECS[args.dataset]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        entries = _entries(args, spec, Path(folder))
        with _registered(spec, entries):
            contests = _contests(spec)
            with tqdm(total=args.images, desc="evaluating", unit="image") as bar:
                for turn, start in enumerate(range(0, args.images, TURN)):
                    numbers = range(start, min(start + TURN, args.images))
                    predictions = [_predict(entries, spec, args.seed, n) for n in numbers]
                    for contest in contests:
                        contest.step(predictions, ours_first=bool(turn % 2))
                    bar.update(len(numbers))
            rows = [contest.row(args.images) for contest in contests]
    maps = f"{len(entries)} {'drawn ' if args.root is None else ''}label maps of {spec.name}"
    megapixels = math.prod(predictions[-1].truth.shape) / 1e6
    conditions = (
        f"{args.images} predictions of {maps} ({len(spec.classes)} labels, about {megapixels:.2f} "
        f"megapixels); {torch.get_num_threads()} thread(s), torch {torch.__version__}."
    )
    headers = ["work", "Detectron2, ms", "ours, ms", "faster", "mIoU differs by"]
    alignment = ("left", *["right"] * 4)
    table = tabulate(rows, headers, "pipe", colalign=alignment, disable_numparse=True)
    return f"{conditions}\n\n{table}"


def _contests(spec: DatasetSpec) -> list[Contest]:
    counting, whole = "accumulation, label maps in memory", "end to end: argmax, label file, counts"
    return [
        Contest(
            f"{counting}, Detectron2 without its RLE",
            Detectron2(in_memory=True, encode=False),
            OurCounts(spec, None),
        ),
        Contest(counting, Detectron2(in_memory=True), OurCounts(spec, None)),
        Contest(
            f"{counting}, ours with boundary F", Detectron2(in_memory=True), OurCounts(spec, 2)
        ),
        Contest(whole, Detectron2(), OurEvaluator(spec, None)),
        Contest(f"{whole}, ours with boundary F", Detectron2(), OurEvaluator(spec, 2)),
    ]


@contextlib.contextmanager
def _registered(spec: DatasetSpec, entries: list[dict[str, Any]]) -> Iterator[None]:
    """Register the images with Detectron2 for a while; its evaluator takes a name."""
    DatasetCatalog.register(TEMPORARY_NAME, lambda: entries)
    MetadataCatalog.get(TEMPORARY_NAME).set(
        stuff_classes=list(spec.classes), ignore_label=spec.ignore_label
    )
    try:
        yield
    finally:
        DatasetCatalog.remove(TEMPORARY_NAME)
        MetadataCatalog.remove(TEMPORARY_NAME)


def _entries(args: argparse.Namespace, spec: DatasetSpec, folder: Path) -> list[dict[str, Any]]:
    """List label maps: those of a data set's splits, or else drawn ones."""
    if args.root is not None:
        register_datasets(args.root)
        splits = (load_registered([f"{spec.name}_{split}"]) for split in spec.splits)
        labelled = [e for e in itertools.chain(*splits) if "sem_seg_file_name" in e]
        if not labelled:
            raise InputError(f"the data set {spec.name} in --root {args.root} has no label maps")
        return labelled
    entries = []
    for number in range(min(DRAWN_MAPS, args.images)):
        path = folder / f"{number}.png"
        write_label_png(path, _draw(spec, np.random.default_rng([args.seed, number])), spec.palette)
        entries.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(path)})
    return entries


def _draw(spec: DatasetSpec, rng: np.random.Generator) -> UInt8Array:
    """Draw a label map of ellipses in the middle, some of its right edge not labelled."""
    height, width = DRAWN_SIZE
    labels = np.zeros(DRAWN_SIZE, np.uint8)
    for value in rng.permutation(len(spec.classes))[:10]:
        center = (int(rng.normal(width / 2, width / 10)), int(rng.uniform(0.1, 0.9) * height))
        axes = (int(rng.uniform(10, width / 6)), int(rng.uniform(10, height / 8)))
        cv2.ellipse(labels, center, axes, float(rng.uniform(0, 180)), 0, 360, int(value), -1)
    labels[:, width - 8 :] = spec.ignore_label
    return labels


def _predict(
    entries: list[dict[str, Any]], spec: DatasetSpec, seed: int, number: int
) -> Prediction:
    """Make the logits of a parser that is right in most places."""
    entry, rng = entries[number % len(entries)], np.random.default_rng([seed, number])
    classes = len(spec.classes)
    truth = read_label(entry["sem_seg_file_name"], classes, spec.ignore_label)
    height, width = truth.shape
    middle = (width / 2, height / 2)
    turn = cv2.getRotationMatrix2D(middle, rng.normal(0, 1), rng.normal(1, 0.01))
    guess = cv2.warpAffine(
        truth, turn, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    for _ in range(3):  # take one class for another in a part of the picture
        top, left = int(rng.integers(height)), int(rng.integers(width))
        part = guess[top : top + height // 6, left : left + width // 6]
        part[part == rng.choice(part.ravel())] = rng.integers(classes)
    guess[guess >= classes] = 0
    small = (-(-width // LOGIT_STRIDE), -(-height // LOGIT_STRIDE))
    coarse = torch.from_numpy(cv2.resize(guess, small, interpolation=cv2.INTER_NEAREST))
    scores = torch.from_numpy(rng.normal(0, 1, (classes, *coarse.shape)).astype(np.float32))
    scores.scatter_add_(0, coarse[None].long(), torch.full((1, *coarse.shape), 6.0))
    logits = F.interpolate(scores[None], size=(height, width), mode="bilinear")[0]
    indices = logits.argmax(dim=0)
    return Prediction(entry, truth, logits, indices, indices.to(torch.uint8).numpy())


def _itself(file: Any) -> Any:
    return file
