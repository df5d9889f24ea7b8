"""Our CLIP towers and text features against the `clip` package's encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clip import tokenize
from clip.model import CLIP, convert_weights
from conftest import PROMPTS, randomise, relative_error
from detectron2.config import CfgNode

from schnet.errors import InputError
from schnet.modeling.clip import (
    CLIP_VARIANTS,
    ClipBackbone,
    ClipVariant,
    build_clip_encoder,
    build_clip_model,
    resize_for_clip,
)
from schnet.modeling.clip_text import encode_prompts
from schnet.modeling.clip_vision import build_tower, resize_positions

RESNET = ClipVariant(24, 224, (1, 2, 1, 1), 16, 32, 64, transformer_layers=2)
TRANSFORMER = ClipVariant(24, 224, 8, 64, 32, 64, transformer_layers=2)


def _model(variant: ClipVariant) -> CLIP:
    return randomise(variant.build()).eval()


@torch.no_grad()
@pytest.mark.parametrize("variant", [RESNET, TRANSFORMER], ids=["resnet", "transformer"])
def test_the_class_embedding_equals_encode_image_at_224(variant: ClipVariant) -> None:
    model = _model(variant)
    images = torch.randn(2, 3, 224, 224)
    _, cls = build_tower(model.visual)(images)
    assert relative_error(cls, model.encode_image(images)) < 1e-5


@torch.no_grad()
def test_resnet_maps_are_those_of_its_four_groups() -> None:
    visual = _model(RESNET).visual
    seen = []
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        layer.register_forward_hook(lambda m, i, output: seen.append(output))
    tower = build_tower(visual)
    maps, _ = tower(torch.randn(1, 3, 64, 96))
    assert [m.shape for m in maps] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(tower.map_channels, (4, 8, 16, 32), strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(maps, seen, strict=True))


@torch.no_grad()
def test_transformer_maps_are_those_of_its_quarters() -> None:
    visual = _model(TRANSFORMER).visual
    seen = []
    for block in visual.transformer.resblocks[1::2]:
        block.register_forward_hook(lambda m, i, output: seen.append(output))
    maps, _ = build_tower(visual)(torch.randn(2, 3, 64, 96))
    for stage_map, tokens in zip(maps, seen, strict=True):
        assert stage_map.shape == (2, 64, 2, 3)
        assert torch.equal(stage_map.flatten(2).permute(2, 0, 1), tokens[1:])


@torch.no_grad()
def test_positions_are_resized_to_height_by_width() -> None:
    column, row = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    table = torch.cat([torch.tensor([[9.0, 9.0]]), torch.stack([column, row], -1).view(49, 2)])
    assert resize_positions(table, (7, 7)) is table
    resized = resize_positions(table, (3, 14))
    assert torch.equal(resized[0], table[0])
    grid = resized[1:].view(3, 14, 2)
    assert (grid[1:, :, 0] > grid[:-1, :, 0]).all()
    assert (grid[:, 1:, 1] > grid[:, :-1, 1]).all()


@torch.no_grad()
@pytest.mark.parametrize("variant", [RESNET, TRANSFORMER], ids=["resnet", "transformer"])
def test_the_class_embedding_uses_positions_at_any_size(variant: ClipVariant) -> None:
    model = _model(variant)
    images = torch.randn(1, 3, 96, 160)
    _, before = build_tower(model.visual)(images)
    assert before.shape == (1, 24)
    pool = model.visual.attnpool if variant is RESNET else model.visual
    pool.positional_embedding.copy_(torch.randn_like(pool.positional_embedding))
    _, after = build_tower(model.visual)(images)
    assert relative_error(after, before) > 1e-3


@torch.no_grad()
def test_prompts_are_encoded_ensembled_and_normalised() -> None:
    model = _model(RESNET)
    templates = ["a photo of a {}.", "the {} of a person"]
    features = encode_prompts(model, PROMPTS, templates)
    for row, phrases in zip(features, PROMPTS, strict=True):
        sentences = [t.format(p) for p in phrases for t in templates]
        each = F.normalize(model.encode_text(tokenize(sentences)), dim=1)
        assert relative_error(row, F.normalize(each.mean(0), dim=0)) < 1e-5
    assert torch.allclose(features.norm(dim=1), torch.ones(4))


def test_prompts_that_cannot_be_encoded_are_named() -> None:
    model = _model(RESNET)
    with pytest.raises(InputError, match="class 1 has no prompt"):
        encode_prompts(model, [["hat"], []], ["a {}"])
    with pytest.raises(InputError, match="too long"):
        encode_prompts(model, [["hat " * 90]], ["a {}"])


def test_the_encoder_runs_without_a_graph_and_stays_in_eval(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    encoder = build_clip_encoder(tiny_cfg(), PROMPTS)
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    images = torch.rand(2, 3, 50, 70, requires_grad=True) * 255
    features = encoder(images)
    assert not any(t.requires_grad for t in (*features.maps, features.cls))
    assert encoder.text_features.shape == (4, 64)
    assert "text_features" not in encoder.state_dict()
    assert not any("transformer" in name for name in encoder.state_dict())


@torch.no_grad()
def test_the_encoder_normalises_as_clip_does(tiny_cfg: Callable[..., CfgNode]) -> None:
    encoder = build_clip_encoder(tiny_cfg(["MODEL.CLIP.INPUT_SCALE", "1.0"]), PROMPTS)
    images = torch.rand(1, 3, 64, 96) * 255
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
    _, expected = encoder.tower((images / 255 - mean) / std)
    assert relative_error(encoder(images).cls, expected) < 1e-5


@pytest.mark.parametrize(
    ("size", "scale", "stride", "expected"),
    [
        ((512, 512), 0.5, 32, (256, 256)),
        ((192, 128), 1.0, 32, (192, 128)),
        ((100, 47), 1.0, 32, (96, 32)),
        ((1, 1), 1.0, 32, (32, 32)),
        ((448, 224), 0.5, 14, (224, 112)),
    ],
)
def test_input_sides_are_rounded_apart(
    size: tuple[int, int], scale: float, stride: int, expected: tuple[int, int]
) -> None:
    assert resize_for_clip(torch.zeros(1, 3, *size), scale, stride).shape[-2:] == expected


def test_an_fp16_file_loads_as_fp32_and_another_variant_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny_clip.pt"
    model = _model(CLIP_VARIANTS["tiny"])
    convert_weights(model)
    torch.save(model.state_dict(), path)
    loaded = build_clip_model("tiny", str(path))
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key].to(value.dtype), value)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.save(_model(RESNET).state_dict(), path)
    with pytest.raises(
        InputError, match=r"MODEL\.CLIP\.WEIGHTS.*tiny_clip\.pt.*CLIP tiny.*text_projection"
    ):
        build_clip_model("tiny", str(path))


@torch.no_grad()
def test_clip_alone_is_a_backbone(tiny_cfg: Callable[..., CfgNode]) -> None:
    backbone = ClipBackbone(tiny_cfg(), None)
    shapes = backbone.output_shape()
    maps = backbone(torch.randn(1, 3, 128, 64))
    assert list(maps) == list(shapes) == ["res2", "res3", "res4", "res5"]
    assert all(maps[name].shape[1] == shapes[name].channels for name in maps)
    assert not any(p.requires_grad for p in backbone.parameters())
