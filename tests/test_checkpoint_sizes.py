"""Sizes on the disk at the real size: lip.yaml with ViT-L and RN101 from files of their classes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from clip.model import convert_weights
from conftest import CONFIGS
from detectron2.modeling import build_model
from segment_anything import sam_model_registry
from torch import nn

from schnet.checkpoint import ParsingCheckpointer, load_model_weights
from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.optimizer import build_optimizer
from schnet.export_weights import export_checkpoint
from schnet.fingerprints import fingerprint
from schnet.modeling.clip import CLIP_VARIANTS

MB = 1e6


def _write_bases(folder: Path) -> tuple[str, ...]:
    """Files as large as the official ones, of random weights; the overrides that name them."""
    sam, clip = folder / "sam_vit_l_random.pth", folder / "RN101_random.pt"
    torch.save(sam_model_registry["vit_l"]().state_dict(), sam)
    model = CLIP_VARIANTS["RN101"].build()
    convert_weights(model)
    torch.save(model.state_dict(), clip)
    assert 1200 * MB < sam.stat().st_size < 1300 * MB
    assert 200 * MB < clip.stat().st_size < 300 * MB
    return ("MODEL.SAM.WEIGHTS", str(sam), "MODEL.CLIP.WEIGHTS", str(clip), "MODEL.DEVICE", "cpu")


def _seconds_of_fingerprint(module: nn.Module) -> float:
    start = time.perf_counter()
    fingerprint(module.state_dict())
    return time.perf_counter() - start


@pytest.mark.slow
def test_trained_weights_stay_small(tmp_path: Path) -> None:
    register_datasets()
    cfg = load_config([CONFIGS / "lip.yaml"], _write_bases(tmp_path))
    model = build_model(cfg)
    seconds = _seconds_of_fingerprint(model.backbone.encoder)
    optimizer = build_optimizer(cfg, model)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    out = tmp_path / "out"
    checkpointer = ParsingCheckpointer(model, str(out), optimizer=optimizer)
    checkpointer.save_weights("model_best", iteration=0)
    checkpointer.save("model_0000000", iteration=0)
    (out / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    weights, resume = ((out / f"{n}.pth").stat().st_size for n in ("model_best", "model_0000000"))
    values = 4 * sum(parameter.numel() for parameter in trained)
    assert values < weights < 100 * MB
    assert weights - values < 1 * MB, "more than the trained parameters is stored"
    assert 2.9 * weights < resume < 3.1 * weights
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    del model, optimizer, checkpointer, trained
    other = build_model(cfg)
    load_model_weights(other, str(out / "model_best.pth"))
    for name, value in other.named_parameters():
        assert name not in before or torch.equal(value, before[name]), name
    del other
    half = export_checkpoint(out / "model_best.pth", tmp_path / "half.safetensors", dtype="float16")
    print(
        f"weights {weights / MB:.1f} MB, resume state {resume / MB:.1f} MB, fp16 export "
        f"{half.size / MB:.1f} MB, fingerprint of ViT-L in {seconds:.1f} s"
    )
    assert 750 * MB < half.size < 900 * MB
