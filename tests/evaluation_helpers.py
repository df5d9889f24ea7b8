"""Small splits with predictions, for the tests of `schnet.evaluation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from schnet.evaluation.parsing_evaluation import ParsingEvaluator

NAMES = ["background", "hat", "hair"]
PALETTE = [(0, 0, 0), (128, 0, 0), (255, 0, 0)]

Split = list[tuple[dict[str, Any], dict[str, torch.Tensor]]]


def toy_evaluator(output_dir: Path | None = None, **options: Any) -> ParsingEvaluator:
    """An evaluator of three classes."""
    return ParsingEvaluator("toy_val", 3, NAMES, output_dir=output_dir, **options)


def write_pair(folder: Path, index: int, truth: np.ndarray) -> dict[str, Any]:
    """Write a label map; return the dataset dict (its image is never opened)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{index}.png"
    Image.fromarray(truth).save(path)
    return {
        "file_name": f"{index}.jpg",
        "image_id": str(index),
        "sem_seg_file_name": str(path),
    }


def logits_of(labels: np.ndarray, num_classes: int = 3) -> dict[str, torch.Tensor]:
    """Negative logits whose argmax is `labels`."""
    indices = torch.from_numpy(labels.astype(np.int64))
    hot = torch.nn.functional.one_hot(indices, num_classes)
    return {"sem_seg": hot.permute(2, 0, 1).float() - 5}


def random_split(folder: Path, size: int) -> Split:
    """`size` images of different shapes with random truth and prediction."""
    rng = np.random.default_rng(0)
    split = []
    for index in range(size):
        shape = (5 + index, 9 - index)
        truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape)
        split.append((write_pair(folder, index, truth), logits_of(rng.integers(0, 3, shape))))
    return split


def without_labels(split: Split) -> Split:
    """The same images as a test set has them."""
    return [
        ({key: value for key, value in entry.items() if key != "sem_seg_file_name"}, output)
        for entry, output in split
    ]
