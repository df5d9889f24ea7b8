"""Our CLIP towers, text features and loading against the `clip` package's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clip import load as load_by_package
from clip import tokenize
from clip.model import CLIP, QuickGELU
from conftest import PROMPTS, randomise, relative_error
from detectron2.config import CfgNode
from official_files import (
    STATE_FORMS,
    meta_state,
    official_clip,
    save_clip_archive,
    save_state,
)
from torch import nn

from schnet.errors import InputError
from schnet.modeling.clip import (
    CLIP_VARIANTS,
    ClipBackbone,
    ClipVariant,
    build_clip_encoder,
    build_clip_model,
    build_tower,
    recognise_clip,
    resize_for_clip,
)
from schnet.modeling.clip_text import encode_prompts
from schnet.modeling.clip_vision import resize_positions

RESNET = ClipVariant(24, 224, (1, 2, 1, 1), 16, 32, 64, transformer_layers=2)
TRANSFORMER = ClipVariant(24, 224, 8, 64, 32, 64, transformer_layers=2)
# Each official model in small: its kind, input size and patches, with fewer and narrower layers.
SHRUNKEN = {
    "RN50": RESNET,
    "RN101": ClipVariant(24, 224, (1, 1, 3, 1), 16, 32, 64, transformer_layers=2),
    "RN50x4": ClipVariant(40, 288, (1, 1, 2, 1), 20, 32, 64, transformer_layers=2),
    "ViT-B/32": TRANSFORMER,
    "ViT-B/16": ClipVariant(24, 224, 4, 64, 16, 64, transformer_layers=2),
    "ViT-L/14": ClipVariant(40, 224, 8, 128, 14, 128, transformer_layers=2),
}
OFFICIAL = sorted(set(CLIP_VARIANTS) - {"tiny"})


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
@pytest.mark.parametrize("variant", [RESNET, TRANSFORMER], ids=["resnet", "transformer"])
def test_towers_are_recorded_for_any_number_of_images(variant: ClipVariant) -> None:
    tower = build_tower(_model(variant).visual)
    example, more = torch.randn(2, 3, 64, 96), torch.randn(3, 3, 64, 96)
    program = torch.export.export(tower, (example,), dynamic_shapes=({0: torch.export.Dim("n")},))
    assert relative_error(program.module()(more)[1], tower(more)[1]) < 1e-5


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


@torch.no_grad()
def test_clip_alone_is_a_backbone(tiny_cfg: Callable[..., CfgNode]) -> None:
    backbone = ClipBackbone(tiny_cfg(), None)
    shapes = backbone.output_shape()
    maps = backbone(torch.randn(1, 3, 128, 64))
    assert list(maps) == list(shapes) == ["res2", "res3", "res4", "res5"]
    assert all(maps[name].shape[1] == shapes[name].channels for name in maps)
    assert not any(p.requires_grad for p in backbone.parameters())


def _assert_equals_package(name: str, path: Path, tolerance: float) -> None:
    """What we load and what OpenAI's package loads on the CPU must agree in all that we use."""
    ours, (theirs, _) = build_clip_model(name, str(path)), load_by_package(str(path), "cpu")
    expected = theirs.state_dict()
    assert set(ours.state_dict()) == set(expected)
    for key, value in ours.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, expected[key]), key
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert any(isinstance(module, QuickGELU) for module in ours.modules())
    side = CLIP_VARIANTS[name].image_resolution
    images = torch.randn(1, 3, side, side)
    _, cls = build_tower(ours.visual)(images)
    assert relative_error(cls, theirs.encode_image(images)) < tolerance
    sentence = "a photo of a left arm"
    text = F.normalize(theirs.encode_text(tokenize([sentence])), dim=1)
    assert relative_error(encode_prompts(ours, [["left arm"]], ["a photo of a {}"]), text) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_archive_equals_the_package_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(CLIP_VARIANTS, name, SHRUNKEN[name])
    save_clip_archive(_model(SHRUNKEN[name]), SHRUNKEN[name], tmp_path / "clip.pt")
    _assert_equals_package(name, tmp_path / "clip.pt", 1e-5)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_a_full_size_archive_equals_the_package_in_fp32(tmp_path: Path, name: str) -> None:
    variant = CLIP_VARIANTS[name]
    save_clip_archive(randomise(variant.build(), scale=0.02).eval(), variant, tmp_path / "clip.pt")
    _assert_equals_package(name, tmp_path / "clip.pt", 1e-4)


@pytest.mark.parametrize("form", STATE_FORMS)
@pytest.mark.parametrize("variant", [RESNET, TRANSFORMER], ids=["resnet", "transformer"])
def test_an_fp16_state_loads_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: ClipVariant, form: str
) -> None:
    monkeypatch.setitem(CLIP_VARIANTS, "tiny", variant)
    state = official_clip(_model(variant), variant).state_dict()
    # Files from before BatchNorm counted its steps.
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    save_state(state, tmp_path / f"clip.{form}", form)
    loaded = build_clip_model("tiny", str(tmp_path / f"clip.{form}"))
    ours = loaded.state_dict()
    numbers = {"input_resolution", "context_length", "vocab_size"}
    assert set(state) - numbers == {k for k in ours if not k.endswith("num_batches_tracked")}
    assert all(torch.equal(ours[k], state[k].float()) for k in set(state) - numbers)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 160), (224, 320), (448, 224)])
@pytest.mark.parametrize("name", ["RN50", "RN50x4", "ViT-B/32", "ViT-B/16", "ViT-L/14"])
def test_other_sizes_equal_the_package_with_resized_positions(
    name: str, size: tuple[int, int]
) -> None:
    variant = SHRUNKEN[name]
    stride = variant.vision_patch_size
    grid = (size[0] // stride, size[1] // stride)
    model = _model(variant)
    images = torch.randn(2, 3, grid[0] * stride, grid[1] * stride)
    _, cls = build_tower(model.visual)(images)
    owner = model.visual.attnpool if name.startswith("RN") else model.visual
    table = owner.positional_embedding
    side = variant.image_resolution // stride
    square = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
    rows = [table[:1], resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)]
    owner.positional_embedding = nn.Parameter(torch.cat(rows))
    assert relative_error(cls, model.encode_image(images)) < 1e-5


def _save_changed(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = _model(CLIP_VARIANTS["tiny"]).state_dict()
    change(state)
    torch.save(state, path)


def test_a_renamed_weight_is_named_with_what_is_there_instead(tmp_path: Path) -> None:
    def rename(state: dict[str, torch.Tensor]) -> None:
        state["visual.first.weight"] = state.pop("visual.conv1.weight")

    _save_changed(tmp_path / "clip.pt", rename)
    with pytest.raises(InputError) as caught:
        build_clip_model("tiny", str(tmp_path / "clip.pt"))
    assert str(caught.value) == (
        f"config key MODEL.CLIP.WEIGHTS names {tmp_path / 'clip.pt'}, which does not hold CLIP "
        "tiny (it lacks visual.conv1.weight; it has the unknown visual.first.weight): give the "
        "file of that variant or correct the variant"
    )


def test_missing_weights_are_counted_beyond_the_first(tmp_path: Path) -> None:
    def drop(state: dict[str, torch.Tensor]) -> None:
        for name in [n for n in state if n.startswith("visual.layer4.0.bn")]:
            if not name.endswith("num_batches_tracked"):
                del state[name]

    _save_changed(tmp_path / "clip.pt", drop)
    told = r"it lacks visual.layer4.0.bn1.weight, visual.layer4.0.bn1.bias, \S+ and 9 more\)"
    with pytest.raises(InputError, match=told):
        build_clip_model("tiny", str(tmp_path / "clip.pt"))


def test_another_variant_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIP_VARIANTS, "RN50", SHRUNKEN["RN50"])
    save_clip_archive(_model(SHRUNKEN["RN50"]), SHRUNKEN["RN50"], tmp_path / "clip.pt")
    told = (
        r"does not hold CLIP tiny \(it seems to be CLIP RN50; .*it has the unknown visual.layer2.1"
        r".*text_projection of shape \(64, 24\) instead of \(64, 64\)"
    )
    with pytest.raises(InputError, match=told):
        build_clip_model("tiny", str(tmp_path / "clip.pt"))


@pytest.mark.parametrize("name", sorted(CLIP_VARIANTS))
def test_every_variant_is_recognised_by_its_weights(name: str) -> None:
    state = meta_state(CLIP_VARIANTS[name].build)
    assert recognise_clip(state) == f"CLIP {name}"


def test_what_is_none_of_our_variants_is_told_by_its_sizes() -> None:
    at_336 = ClipVariant(768, 336, 24, 1024, 14, 768)
    assert recognise_clip(meta_state(at_336.build)) == (
        "a CLIP transformer with patches of 14, width 1024, layers 24, for images of 336"
    )
    assert recognise_clip({"a": torch.zeros(1)}) == ""
