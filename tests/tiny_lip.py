"""A data set in LIP's layout of a few tiny images, and the overrides that train on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT, WIDTH = 48, 32
COUNTS = {"train": 5, "val": 3}

OPTS = [
    *("DATASETS.TRAIN", "('lip_train',)", "DATASETS.TEST", "('lip_val',)"),
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.SAM.VARIANT", "tiny", "MODEL.SAM.WEIGHTS", "random"),
    *("MODEL.CLIP.VARIANT", "tiny", "MODEL.CLIP.WEIGHTS", "random"),
    *("MODEL.FTM.NUM_TOKENS", "5", "MODEL.FTM.HIDDEN_DIM", "8"),
    *("MODEL.SEM_SEG_HEAD.FUSE_DIM", "16", "MODEL.SEM_SEG_HEAD.FUSE_BLOCKS", "1"),
    *("MODEL.SEM_SEG_HEAD.STEM_DIMS", "[8, 8, 16]"),
    *("INPUT.SIZE", f"[{HEIGHT}, {WIDTH}]", "SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.MAX_ITER", "4", "SOLVER.WARMUP_ITERS", "1", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("TEST.EVAL_PERIOD", "2", "DATALOADER.NUM_WORKERS", "0", "SEED", "3"),
    *("SOLVER.AMP.ENABLED", "False"),
]
"""Overrides for tiny fp32 models, four iterations, evaluation and checkpoint every second."""


def make_lip(root: Path, counts: dict[str, int] | None = None) -> Path:
    """Write images and label maps in LIP's layout below `root`/lip.

    Returns:
        The data set's folder.
    """
    rng = np.random.default_rng(0)
    folder = root / "lip"
    for split, count in (counts or COUNTS).items():
        images, labels = split_folders(folder, split)
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        ids = [f"{split}_{number}" for number in range(count)]
        for name in ids:
            label = rng.integers(0, 20, (HEIGHT // 8, WIDTH // 8)).repeat(8, 0).repeat(8, 1)
            image = np.stack([label * 12, 255 - label * 12, label % 5 * 50], axis=-1)
            save(images / f"{name}.jpg", image)
            save(labels / f"{name}.png", label)
        (images.parent / f"{split}_id.txt").write_text("".join(f"{name}\n" for name in ids))
    return folder


def split_folders(folder: Path, split: str) -> tuple[Path, Path]:
    """The folders of a split's images and label maps."""
    return (
        folder / "TrainVal_images" / "TrainVal_images" / f"{split}_images",
        folder / "TrainVal_parsing_annotations" / f"{split}_segmentations",
    )


def save(path: Path, pixels: npt.NDArray[np.integer]) -> None:
    """Write an array as an image file."""
    Image.fromarray(pixels.astype(np.uint8)).save(path)
