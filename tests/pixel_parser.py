"""The least model that the trainer can train, here and in spawned processes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import nn

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.trainer import ParsingTrainer


class PixelParser(nn.Module):
    """One 1x1 convolution on the colours, and a frozen one that must not move."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.frozen = nn.Conv2d(3, 8, 1).requires_grad_(False)
        self.head = nn.Conv2d(8, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 1)
        self.seen: list[str] = []
        self.fail: Callable[[int], None] = lambda calls: None

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        if not self.training:
            return [
                {"sem_seg": F.interpolate(x, size=(entry["height"], entry["width"]))[0]}
                for x, entry in zip(self._logits(batch), batch, strict=True)
            ]
        self.seen += [str(entry["image_id"]) for entry in batch]
        self.fail(len(self.seen) // len(batch) - 1)
        return self.losses(batch)

    def losses(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        losses = [
            F.cross_entropy(x, entry["sem_seg"][None].long(), ignore_index=255)
            for x, entry in zip(self._logits(batch), batch, strict=True)
        ]
        return {"loss_ce": torch.stack(losses).mean()}

    def _logits(self, batch: list[dict[str, Any]]) -> list[torch.Tensor]:
        return [self.head(self.frozen(entry["image"].float()[None] / 255)) for entry in batch]


@contextlib.contextmanager
def pixel_parser_registered() -> Iterator[None]:
    """Make it an architecture for a while; Detectron2's registries have no way to remove one."""
    META_ARCH_REGISTRY._obj_map["PixelParser"] = PixelParser
    try:
        yield
    finally:
        del META_ARCH_REGISTRY._obj_map["PixelParser"]


def train_to_file(config: str, folder: str) -> None:
    """Train by a dumped config, in each of several processes; the results go to `rank<n>.json`."""
    file = Path(folder) / f"config{comm.get_rank()}.yaml"
    file.write_text(config, encoding="utf-8")
    register_datasets()
    torch.manual_seed(0)
    with pixel_parser_registered():
        results = ParsingTrainer(load_config([file])).train()
    if results:
        (Path(folder) / f"rank{comm.get_rank()}.json").write_text(json.dumps(results))


def train_until(cfg: CfgNode, at: int, error: Exception) -> ParsingTrainer:
    """Train until an iteration raises."""
    torch.manual_seed(0)
    trainer = ParsingTrainer(cfg)

    def fail(iteration: int) -> None:
        if iteration == at:
            raise error

    trainer.model.fail = fail
    with pytest.raises(type(error)):
        trainer.train()
    return trainer
