"""What tells one base from another: the values, not the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from base_files import clip_state, sam_state, script_archive, write_clip, write_sam
from detectron2.config import CfgNode

from schnet.fingerprints import BaseSource, fingerprint
from schnet.modeling.clip import ClipBackbone, build_clip_encoder, build_clip_model, clip_source
from schnet.modeling.sam_encoder import build_sam_encoder

STATE = {"a": torch.tensor([[1.0, 0.5], [2.0, -3.0]]), "b": torch.tensor(4.0), "c": torch.ones(0)}


def test_order_type_and_layout_do_not_count() -> None:
    same = {
        "c": torch.ones(0),
        "b": torch.tensor(4),
        "a": torch.tensor([[1.0, 2.0], [0.5, -3.0]]).t().bfloat16(),
    }
    assert fingerprint(same) == fingerprint(STATE)
    assert len(fingerprint(STATE)) == 64


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "b": torch.tensor(4.0000005)},
        {**STATE, "a": STATE["a"].reshape(1, 4)},
        {**STATE, "a": STATE["a"].t()},
        {**STATE, "d": torch.ones(0)},
        {"a": STATE["a"], "bb": STATE["b"], "c": STATE["c"]},
        {"a": STATE["b"], "b": STATE["a"], "c": STATE["c"]},
    ],
    ids=["value", "shape", "order of values", "one more", "name", "names swapped"],
)
def test_names_shapes_and_values_count(other: dict[str, torch.Tensor]) -> None:
    assert fingerprint(other) != fingerprint(STATE)


def test_a_source_comes_back_from_its_dict_and_is_told_in_words() -> None:
    source = BaseSource("MODEL.SAM.WEIGHTS", "sam_vit_l", "SAM vit_l", "0123456789abcdef" * 4)
    assert BaseSource.from_dict(source.as_dict()) == source
    assert str(source) == "SAM vit_l of sam_vit_l (fingerprint 0123456789ab)"
    with pytest.raises(KeyError):
        BaseSource.from_dict({"key": "MODEL.SAM.WEIGHTS"})


def test_sam_is_the_same_from_every_form_of_file(tmp_path: Path) -> None:
    official = write_sam(tmp_path / "sam.pth")
    safetensors.torch.save_file(sam_state(), tmp_path / "sam.safetensors")
    encoders = [
        build_sam_encoder("tiny", file)
        for file in (official, str(tmp_path / "sam.safetensors"), write_sam(tmp_path / "b.pth", 2))
    ]
    first, second, other = (encoder.source for encoder in encoders)
    assert first is not None and second is not None and other is not None
    assert (first.key, first.weights, first.variant) == ("MODEL.SAM.WEIGHTS", official, "SAM tiny")
    assert first.fingerprint == second.fingerprint != other.fingerprint
    assert build_sam_encoder("tiny", "random").source is None


def test_clip_is_the_same_from_fp16_torchscript_and_fp32_files(tmp_path: Path) -> None:
    script_archive(clip_state(), tmp_path / "clip.pt")
    widened = {name: tensor.float() for name, tensor in clip_state().items()}
    torch.save({"state_dict": widened}, tmp_path / "clip.pth")
    safetensors.torch.save_file(clip_state(), tmp_path / "clip.safetensors")
    found = {_clip_fingerprint(tmp_path / f"clip.{end}") for end in ("pt", "pth", "safetensors")}
    assert len(found) == 1


def test_clip_counts_with_the_text_tower_that_its_features_come_from(tmp_path: Path) -> None:
    one, other = tmp_path / "a.pt", tmp_path / "b.pt"
    write_clip(one)
    write_clip(other, text_shift=0.5)
    assert _clip_fingerprint(one) != _clip_fingerprint(other)


def test_encoder_and_backbone_know_their_file(
    tmp_path: Path, tiny_cfg: Callable[..., CfgNode]
) -> None:
    weights = write_clip(tmp_path / "clip.pt")
    cfg = tiny_cfg(("MODEL.CLIP.WEIGHTS", weights))
    encoder, backbone = build_clip_encoder(cfg, [["hair"]]), ClipBackbone(cfg, None)
    assert encoder.source is not None and encoder.source == backbone.clip.source
    assert (encoder.source.weights, encoder.source.variant) == (weights, "CLIP tiny")
    assert encoder.source.fingerprint == _clip_fingerprint(tmp_path / "clip.pt")
    assert encoder.derived == ("text_features", "logit_scale")
    # Alone it has no text features that could be lost.
    assert backbone.clip.derived == ()
    assert build_clip_encoder(tiny_cfg(), [["hair"]]).source is None


def _clip_fingerprint(path: Path) -> str:
    source = clip_source(build_clip_model("tiny", str(path)), "tiny", str(path))
    assert source is not None
    return source.fingerprint
