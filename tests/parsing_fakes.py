"""What the tests of inference, demo and tools share: a fake model, images, a tiny checkpoint."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from conftest import REPOSITORY, TINY_OPTS
from detectron2.data import Metadata
from detectron2.modeling import build_model
from PIL import Image

from schnet.config import load_config
from schnet.data.catalog import SPECS, register_datasets
from schnet.data.index import DatasetIndex, IndexRecord, write_index
from schnet.data.mapper import TestMapper
from schnet.inference import Parser, SegmentationModel


class ThresholdModel:
    """Stands in for SCHNet: label 1 where an image is bright; records what it was given."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def __call__(self, inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, torch.Tensor]]:
        self.seen.extend(inputs)
        outputs = []
        for entry in inputs:
            grey = entry["image"].float().mean(dim=0)[None, None]
            size = (entry["height"], entry["width"])
            grey = torch.nn.functional.interpolate(grey, size=size, mode="bilinear")[0, 0]
            outputs.append({"sem_seg": torch.stack([torch.full_like(grey, 128.0), grey])})
        return outputs


def fake_parser(model: SegmentationModel | None = None) -> Parser:
    """Make a parser of two labels, `background` and `bright`."""
    metadata = Metadata(
        stuff_classes=["background", "bright"], stuff_colors=[[0, 0, 0], [9, 200, 7]]
    )
    return Parser(model or ThresholdModel(), TestMapper(box=(32, 32)), metadata)


def half_bright(height: int, width: int) -> np.ndarray:
    """Make an image whose right half is white and whose left half is black."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


def write_split(root: Path, spec_name: str, split: str, labels: Sequence[np.ndarray]) -> None:
    """Write a split with these label maps and half-bright photos, and its index."""
    spec = SPECS[spec_name]
    folder = root / spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    counts = np.zeros(256, np.int64)
    for number, label in enumerate(labels):
        photo, truth = f"{split}_{number}.jpg", f"{split}_{number}.png"
        Image.fromarray(half_bright(*label.shape)).save(folder / photo)
        Image.fromarray(label).save(folder / truth)
        records.append(IndexRecord(photo, truth, *label.shape))
        counts += np.bincount(label.ravel(), minlength=256)
    totals = tuple(counts[: len(spec.classes)].tolist())
    write_index(
        folder / f"{split}.json", DatasetIndex(spec.classes, ".", ".", totals, tuple(records))
    )


def write_tiny_model(folder: Path) -> tuple[Path, Path]:
    """Write a config of the tiny model for the dolls, and a checkpoint of random weights."""
    register_datasets()
    names = ("DATASETS.TRAIN", "('dolls_train',)", "DATASETS.TEST", "('dolls_val',)")
    opts = [*TINY_OPTS, *names, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "20", "INPUT.SIZE", "[32, 32]"]
    cfg = load_config([], opts)
    model = build_model(cfg)
    for parameter in model.sem_seg_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config, weights = folder / "tiny.yaml", folder / "tiny.pth"
    config.write_text(cfg.dump())
    torch.save(model.state_dict(), weights)
    return config, weights


def write_tiny_run(folder: Path) -> Path:
    """Write a run's folder: `model_best.pth` and `config.yaml` of the tiny model."""
    config, weights = write_tiny_model(folder)
    weights.rename(folder / "model_best.pth")
    config.rename(folder / "config.yaml")
    return folder


def load_script(path: str) -> ModuleType:
    """Import a script of the repository, such as `tools/contact_sheet.py`."""
    file = REPOSITORY / path
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module
