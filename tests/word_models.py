"""Tiny runs whose text classifier can parse by names, on a CLIP of a file or a random one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from base_files import base_opts, train_a_little
from conftest import TINY_OPTS
from detectron2.modeling import build_model

from schnet.checkpoint import ParsingCheckpointer
from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.inference import Parser

OPTS = (
    *TINY_OPTS,
    *("DATASETS.TRAIN", "('dolls_train',)", "DATASETS.TEST", "('dolls_val',)"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "20", "INPUT.SIZE", "[32, 32]"),
)
TEXT = ("MODEL.SEM_SEG_HEAD.CLASSIFIER", "text")


def write_run(folder: Path, *opts: str, bases: bool = True) -> Path:
    """Write a run's folder, `model_best.pth` and `config.yaml`.

    Args:
        folder: where the run and the files of its bases go.
        opts: config overrides.
        bases: write files of SAM and CLIP (`bases/clip.pt`); else both are random.
    """
    register_datasets()
    folder.mkdir(parents=True, exist_ok=True)
    own = base_opts(folder / "bases") if bases else ()
    out = folder / "run"
    cfg = load_config([], [*OPTS, *own, "OUTPUT_DIR", str(out), *opts])
    out.mkdir(parents=True)
    (out / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    model = train_a_little(build_model(cfg))
    ParsingCheckpointer(model, str(out)).save_weights("model_best", iteration=9, best={"mIoU": 1.0})
    return out


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image of random pixels."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def logits(parser: Parser, image: np.ndarray) -> torch.Tensor:
    """The logits (K, H, W) that a parser decides by."""
    model, mapper = parser._score_model, parser._mapper
    assert model is not None
    with torch.inference_mode():
        return model([mapper.from_array(image)])[0]["sem_seg"]
