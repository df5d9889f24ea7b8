"""SamBackbone against segment_anything's encoder, at its own size, at others, and with FTM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import randomise, relative_error
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from official_files import STATE_FORMS, build_official_sam, meta_state, save_state
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import nn

from schnet.errors import InputError
from schnet.modeling.ftm import FTM
from schnet.modeling.sam import SamBackbone, pad_to_multiple
from schnet.modeling.sam_encoder import (
    SAM_VARIANTS,
    SamEncoder,
    SamVariant,
    build_sam_encoder,
    recognise_sam,
)

# SAM's window and image size in a width that a test can afford.
NARROW = SamVariant(dim=32, depth=4, num_heads=2, global_layers=(0, 1, 2, 3))
NARROW_WINDOWED = SamVariant(dim=32, depth=6, num_heads=2, global_layers=(1, 2, 4, 5))


def reference(variant: SamVariant, scale: float = 0.2) -> ImageEncoderViT:
    """segment_anything's own encoder, every parameter random, positions included."""
    encoder = ImageEncoderViT(
        img_size=variant.image_size,
        embed_dim=variant.dim,
        depth=variant.depth,
        num_heads=variant.num_heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=variant.window_size,
        global_attn_indexes=variant.global_layers,
    )
    return randomise(encoder, scale=scale).eval()


def backbone_like(encoder: ImageEncoderViT, variant: SamVariant) -> SamBackbone:
    """Our backbone with the reference's weights."""
    ours = SamEncoder(variant)
    state = {k: v for k, v in encoder.state_dict().items() if not k.startswith("neck.")}
    ours.load_state_dict(state)
    return SamBackbone(encoder=ours, ftm=None, variant=variant).eval()


@torch.no_grad()
def reference_stages(encoder: ImageEncoderViT, images: torch.Tensor) -> list[torch.Tensor]:
    """Maps of the reference after its patch embedding and each of its layers."""
    x = encoder.patch_embed(images)
    table = encoder.pos_embed.permute(0, 3, 1, 2)
    x = x + F.interpolate(table, x.shape[1:3], mode="bilinear").permute(0, 2, 3, 1)
    maps = [x]
    for block in encoder.blocks:
        x = block(x)
        maps.append(x)
    return [m.permute(0, 3, 1, 2) for m in maps]


@torch.no_grad()
@pytest.mark.parametrize("variant", [NARROW_WINDOWED, SAM_VARIANTS["tiny"]])
def test_equals_segment_anything_at_its_own_size(variant: SamVariant) -> None:
    encoder = reference(variant)
    images = torch.randn(1, 3, variant.image_size, variant.image_size)
    ours = backbone_like(encoder, variant)(images)
    encoder.neck = nn.Identity()
    assert relative_error(ours["stage4"], encoder(images)) < 1e-5


@torch.no_grad()
@pytest.mark.slow
def test_vit_b_equals_segment_anything_at_1024() -> None:
    encoder = reference(SAM_VARIANTS["vit_b"], scale=0.02)
    images = torch.randn(1, 3, 1024, 1024)
    ours = backbone_like(encoder, SAM_VARIANTS["vit_b"])(images)
    encoder.neck = nn.Identity()
    assert relative_error(ours["stage4"], encoder(images)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (160, 96), (48, 320), (16, 16)])
def test_every_stage_equals_segment_anything_at_other_sizes(size: tuple[int, int]) -> None:
    variant = SAM_VARIANTS["tiny"]
    encoder = reference(variant)
    images = torch.randn(2, 3, *size)
    ours = backbone_like(encoder, variant)(images)
    theirs = reference_stages(encoder, images)
    assert list(ours) == [f"stage{i}" for i in range(5)]
    for name, after in zip(ours, (0, 2, 4, 6, 8), strict=True):
        assert ours[name].shape == (2, variant.dim, size[0] // 16, size[1] // 16)
        assert relative_error(ours[name], theirs[after]) < 1e-5, name


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (100, 47)])
def test_sides_are_padded_with_zeros_to_multiples_of_16(size: tuple[int, int]) -> None:
    backbone = backbone_like(reference(SAM_VARIANTS["tiny"]), SAM_VARIANTS["tiny"])
    images = torch.randn(1, 3, *size)
    padded = pad_to_multiple(images, 16)
    assert padded.shape[-2] % 16 == 0 == padded.shape[-1] % 16
    assert float(padded.abs().sum()) == pytest.approx(float(images.abs().sum()), rel=1e-5)
    assert torch.equal(padded[..., : size[0], : size[1]], images)
    assert torch.equal(backbone(images)["stage4"], backbone(padded)["stage4"])


@torch.no_grad()
def test_ftm_with_rho_zero_is_plain_sam_to_the_bit_and_otherwise_not() -> None:
    variant = SAM_VARIANTS["tiny"]
    plain = backbone_like(reference(variant), variant)
    ftm = FTM(num_layers=8, dim=variant.dim, num_tokens=5, hidden_dim=8, rho_init=0.0)
    tuned = SamBackbone(encoder=plain.encoder, ftm=ftm, variant=variant).eval()
    images = torch.randn(1, 3, 64, 48)
    for name, expected in plain(images).items():
        assert torch.equal(tuned(images)[name], expected)
    ftm.rho[7] = 0.1
    assert torch.equal(tuned(images)["stage3"], plain(images)["stage3"])
    assert not torch.equal(tuned(images)["stage4"], plain(images)["stage4"])


@torch.no_grad()
def test_what_refine_returns_goes_on_and_is_seen() -> None:
    variant = SAM_VARIANTS["tiny"]
    backbone = backbone_like(reference(variant), variant)
    images = torch.randn(1, 3, 32, 48)
    plain = backbone(images)
    points = []

    def seen_only(point: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points.append((point, tuple(x.shape)))
        return x, x + 1

    def fed_back(point: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x + 1, x) if point == 2 else (x, x)

    for name, value in backbone(images, seen_only).items():
        assert torch.equal(value, plain[name] + 1)
    assert points == [(i, (1, 2, 3, variant.dim)) for i in range(5)]
    changed = backbone(images, fed_back)
    assert torch.equal(changed["stage2"], plain["stage2"])
    assert not torch.equal(changed["stage3"], plain["stage3"])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("vit_b", (0, 3, 3, 3, 3)), ("vit_l", (0, 6, 6, 6, 6)), ("vit_h", (0, 8, 8, 8, 8))],
)
def test_stages_end_at_the_global_layers(name: str, sizes: tuple[int, ...]) -> None:
    with torch.device("meta"):
        variant = SAM_VARIANTS[name]
        backbone = SamBackbone(encoder=SamEncoder(variant), ftm=None, variant=variant)
    assert tuple(len(stage) for stage in backbone.stages) == sizes
    for stage in backbone.stages[1:]:
        windows = [backbone.encoder.blocks[layer].window_size for layer in stage]
        assert windows == [14] * (len(stage) - 1) + [0]
    assert not any("neck" in key for key in backbone.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (160, 320)])
def test_other_sizes_equal_the_package_with_resized_positions(size: tuple[int, int]) -> None:
    encoder = reference(NARROW_WINDOWED)
    images = torch.randn(1, 3, *size)
    ours = backbone_like(encoder, NARROW_WINDOWED)(images)["stage4"]
    assert relative_error(ours, _package_forward(encoder, images)) < 1e-5


def _package_forward(encoder: ImageEncoderViT, images: torch.Tensor) -> torch.Tensor:
    """The package's own forward without its neck, the table of positions resized for the images."""
    grid = (images.shape[-2] // 16, images.shape[-1] // 16)
    table = encoder.pos_embed.permute(0, 3, 1, 2)
    resized = F.interpolate(table, grid, mode="bilinear", align_corners=False)
    encoder.pos_embed = nn.Parameter(resized.permute(0, 2, 3, 1))
    encoder.neck = nn.Identity()
    return encoder(images)


def _assert_encoder(encoder: SamEncoder, sam: Sam) -> None:
    expected = sam.image_encoder.state_dict()
    assert set(encoder.state_dict()) == {k for k in expected if not k.startswith("neck.")}
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("alone", [False, True], ids=["all of SAM", "its encoder alone"])
@pytest.mark.parametrize("form", STATE_FORMS)
def test_an_official_file_loads_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, alone: bool
) -> None:
    monkeypatch.setitem(SAM_VARIANTS, "vit_b", NARROW)
    sam = randomise(build_official_sam(NARROW))
    assert any(name.startswith("mask_decoder.") for name in sam.state_dict())
    saved = sam.image_encoder if alone else sam
    save_state(saved.state_dict(), tmp_path / f"sam.{form}", form)
    _assert_encoder(build_sam_encoder("vit_b", str(tmp_path / f"sam.{form}")), sam)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_a_full_size_official_file_loads_and_equals_the_package(tmp_path: Path, name: str) -> None:
    sam = randomise(sam_model_registry[name](), scale=0.02)
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    encoder = build_sam_encoder(name, str(tmp_path / "sam.pth"))
    _assert_encoder(encoder, sam)
    assert recognise_sam(encoder.state_dict()) == f"SAM {name}"
    ours = SamBackbone(encoder=encoder, ftm=None, variant=SAM_VARIANTS[name]).eval()
    images = torch.randn(1, 3, 224, 320)
    expected = _package_forward(sam.image_encoder, images)
    assert relative_error(ours(images)["stage4"], expected) < 1e-5


def test_weights_of_other_precision_become_fp32(tmp_path: Path) -> None:
    state = {k: v.bfloat16() for k, v in reference(SAM_VARIANTS["tiny"]).state_dict().items()}
    torch.save(state, tmp_path / "sam.pth")
    encoder = build_sam_encoder("tiny", str(tmp_path / "sam.pth"))
    assert torch.equal(encoder.pos_embed, state["pos_embed"].float())
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("pos_embed", "", "it lacks pos_embed"),
        ("pos_embed", "positions", "it lacks pos_embed; it has the unknown positions"),
        ("", "image_encoder.extra", "it has the unknown extra"),
        ("", "ftm.tokens", "it has the unknown ftm.tokens"),
        ("neck.0.weight", "", ""),
    ],
)
def test_loading_is_strict(tmp_path: Path, old: str, new: str, told: str) -> None:
    state = {
        f"image_encoder.{k}": v for k, v in reference(SAM_VARIANTS["tiny"]).state_dict().items()
    }
    moved = state.pop(f"image_encoder.{old}") if old else torch.zeros(1)
    if new:
        state[f"image_encoder.{new}" if old else new] = moved
    path = tmp_path / "sam.pth"
    torch.save(state, path)
    if not told:
        build_sam_encoder("tiny", str(path))
        return
    with pytest.raises(InputError) as caught:
        build_sam_encoder("tiny", str(path))
    assert str(caught.value) == (
        f"config key MODEL.SAM.WEIGHTS names {path}, which does not hold SAM tiny ({told}): give "
        "the file of that variant or correct the variant"
    )


def test_another_variant_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(reference(NARROW).state_dict(), tmp_path / "sam.pth")
    told = (
        r"\(it seems to be {}; it lacks blocks.4.*pos_embed of shape \(1, 64, 64, 32\) instead of"
    )
    width = "a SAM encoder of width 32 and depth 4"
    with pytest.raises(InputError, match=told.format(width)):
        build_sam_encoder("tiny", str(tmp_path / "sam.pth"))
    monkeypatch.setitem(SAM_VARIANTS, "vit_b", NARROW)
    with pytest.raises(InputError, match=told.format("SAM vit_b")):
        build_sam_encoder("tiny", str(tmp_path / "sam.pth"))
    assert recognise_sam({"blocks.0.a": torch.zeros(1)}) == ""


@pytest.mark.parametrize("name", sorted(SAM_VARIANTS))
def test_every_variant_is_recognised_by_its_weights(name: str) -> None:
    state = meta_state(lambda: SamEncoder(SAM_VARIANTS[name]))
    assert recognise_sam(state) == f"SAM {name}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MODEL\.SAM\.WEIGHTS.*absent\.pth"):
        build_sam_encoder("tiny", str(tmp_path / "absent.pth"))


def test_a_random_base_is_the_same_whenever_it_is_built_and_leaves_the_generator() -> None:
    first = build_sam_encoder("tiny", "random")
    state = torch.get_rng_state()
    second = build_sam_encoder("tiny", "random")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_the_config_switches_freezing_and_ftm(tiny_cfg: Callable[..., CfgNode]) -> None:
    frozen = SamBackbone(tiny_cfg(), None)
    assert frozen.ftm is not None
    assert not any(p.requires_grad for p in frozen.encoder.parameters())
    free = SamBackbone(tiny_cfg(["MODEL.SAM.FREEZE", "False", "MODEL.FTM.ENABLED", "False"]), None)
    assert free.ftm is None
    assert all(p.requires_grad for p in free.encoder.parameters())


def _learned(cfg: CfgNode, dtype: torch.dtype | None, *, eager: bool) -> dict[str, torch.Tensor]:
    """SCHNet's losses and gradients with activations recomputed, or with none."""
    torch.manual_seed(0)
    model = build_model(cfg).train()
    for part in (model.backbone.ftm, model.sem_seg_head):
        if part is not None:
            randomise(part)
    assert model.backbone.activation_checkpointing
    model.backbone.activation_checkpointing = not eager
    batch = [{"image": torch.rand(3, 48, 32) * 255, "sem_seg": torch.randint(0, 4, (48, 32))}]
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    return {**losses, **{n: p.grad for n, p in model.named_parameters() if p.requires_grad}}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("frozen", ["True", "False"])
@pytest.mark.parametrize("ftm", ["True", "False"])
@pytest.mark.parametrize("feedback", ["True", "False"])
@pytest.mark.parametrize("part", ["layer", "mlp"])
def test_what_is_recomputed_gives_the_same_gradients_to_the_bit(
    tiny_cfg: Callable[..., CfgNode],
    ftm: str,
    frozen: str,
    feedback: str,
    part: str,
    dtype: torch.dtype | None,
) -> None:
    switches = (
        "MODEL.FTM.ENABLED",
        ftm,
        "MODEL.SAM.FREEZE",
        frozen,
        "MODEL.SRM.FEEDBACK",
        feedback,
    )
    recompute = ("MODEL.SAM.ACTIVATION_CHECKPOINTING", "True", "MODEL.SAM.RECOMPUTED", part)
    cfg = tiny_cfg([*switches, *recompute])
    plain, recomputed = (_learned(cfg, dtype, eager=eager) for eager in (True, False))
    assert plain.keys() == recomputed.keys()
    for name, value in plain.items():
        assert value is not None and torch.equal(recomputed[name], value), name


def test_layers_are_recomputed_in_training_alone_and_srm_never(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    backbone = SamBackbone(tiny_cfg(["MODEL.SAM.ACTIVATION_CHECKPOINTING", "True"]), None)
    calls = {"block": 0, "ftm": 0, "refine": 0}

    def count(name: str) -> Callable[..., None]:
        return lambda *_: calls.update({name: calls[name] + 1})

    layer = backbone.encoder.layer

    def counted(index: int, tokens: torch.Tensor, **options: bool) -> torch.Tensor:
        count("block")()
        return layer(index, tokens, **options)

    backbone.encoder.layer = counted
    # It begins, and ends as soon as it has what the backward pass wants.
    backbone.ftm.register_forward_pre_hook(count("ftm"))

    def refine(point: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls["refine"] += 1
        return x, x

    def run() -> tuple[int, ...]:
        calls.update(block=0, ftm=0, refine=0)
        last = backbone(torch.randn(1, 3, 32, 32), refine)["stage4"]
        if last.requires_grad:
            last.sum().backward()
        return tuple(calls.values())

    assert run() == (16, 16, 5)
    with torch.no_grad():
        assert run() == (8, 8, 5)
    backbone.eval()
    assert run() == (8, 8, 5)
    backbone.train()
    backbone.activation_checkpointing = False
    assert run() == (8, 8, 5)


@pytest.mark.parametrize("fast", ["True", "False"])
def test_mlps_are_recomputed_in_training_alone(
    fast: str, tiny_cfg: Callable[..., CfgNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = ["MODEL.SAM.ACTIVATION_CHECKPOINTING", "True", "MODEL.SAM.RECOMPUTED", "mlp"]
    backbone = SamBackbone(tiny_cfg([*switches, "MODEL.SAM.FAST", fast]), None)
    # The norm before the MLP runs twice where it is recomputed, that before the attention never.
    calls = {"norm1": 0, "norm2": 0}
    for block in backbone.encoder.blocks:
        for name in calls:

            def count(*_: object, name: str = name) -> None:
                calls[name] += 1

            getattr(block, name).register_forward_pre_hook(count)

    def run() -> tuple[int, int]:
        calls.update(norm1=0, norm2=0)
        backbone(torch.randn(1, 3, 32, 32))["stage4"].sum().backward()
        return calls["norm1"], calls["norm2"]

    # The first layer is in no graph: FTM comes behind it.
    assert run() == (8, 8 + 7)
    backbone.eval()
    assert run() == (8, 8)
    backbone.train()
    backbone.activation_checkpointing = False
    assert run() == (8, 8)


def test_recomputed_layers_keep_their_inputs_alone(tiny_cfg: Callable[..., CfgNode]) -> None:
    kept = {}
    for recomputed in ("none", "mlp", "layer"):
        switches = ["MODEL.SAM.ACTIVATION_CHECKPOINTING", str(recomputed != "none")]
        part = ["MODEL.SAM.RECOMPUTED", "layer" if recomputed == "none" else recomputed]
        cfg = tiny_cfg([*switches, *part])
        backbone, sizes = SamBackbone(cfg, None), []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            backbone(torch.randn(1, 3, 64, 64))
        kept[recomputed] = sum(sizes)
    assert kept["layer"] < kept["none"] / 10
    # Queries, keys, values and two norms' inputs, but not the four times wider hidden layer.
    assert kept["none"] / 2 < kept["mlp"] < 0.75 * kept["none"]
