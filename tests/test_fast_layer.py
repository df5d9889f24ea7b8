"""The fast path of SAM against segment_anything: every size, both types, forward and backward."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from conftest import relative_error
from test_sam import NARROW, NARROW_WINDOWED, backbone_like, reference, reference_stages

from schnet.modeling import fast_layer
from schnet.modeling.ftm import FTM
from schnet.modeling.sam import SamBackbone
from schnet.modeling.sam_encoder import SAM_VARIANTS, SamBlock, SamEncoder, SamVariant

TINY = SAM_VARIANTS["tiny"]
# A windowed and a global layer, in a width that large sizes can afford.
PAIR = SamVariant(dim=32, depth=2, num_heads=2, global_layers=(1,), image_size=512)
SIZES = [(512, 512), (768, 512), (200, 120), (16, 16)]
BF16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


def fast_like(variant: SamVariant, scale: float = 0.2) -> SamBackbone:
    """A frozen backbone on the fast path, every parameter random."""
    backbone = backbone_like(reference(variant, scale), variant)
    backbone.encoder.fast = True
    backbone.encoder.freeze()
    return backbone


def last_map(backbone: SamBackbone, images: torch.Tensor) -> torch.Tensor:
    """The map after the last layer."""
    return list(backbone(images).values())[-1].float()


@contextmanager
def plain(backbone: SamBackbone) -> Iterator[None]:
    """Take the plain layers for a while."""
    backbone.encoder.fast = False
    try:
        yield
    finally:
        backbone.encoder.fast = True


def with_gradient(backbone: SamBackbone, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last map in fp32, and the images' gradient of a fixed random projection of it."""
    images = images.clone().requires_grad_()
    last = last_map(backbone, images)
    direction = torch.randn(last.shape, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(last, images, direction)
    return last.detach(), grad


@pytest.fixture
def only_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a plain block runs."""

    def refuse(self: SamBlock, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a plain block ran")

    monkeypatch.setattr(SamBlock, "forward", refuse)


@torch.no_grad()
@pytest.mark.parametrize("size", [(512, 512), (208, 128), (16, 16)])
@pytest.mark.parametrize("variant", [NARROW, NARROW_WINDOWED], ids=["global", "windowed"])
def test_equals_segment_anything(variant: SamVariant, size: tuple[int, int]) -> None:
    encoder = reference(variant)
    ours = backbone_like(encoder, variant)
    ours.encoder.fast = True
    images = torch.randn(1, 3, *size)
    theirs = reference_stages(encoder, images)
    maps = ours(images)
    for stage, layers in enumerate(ours.stages):
        after = layers[-1] + 1 if layers else 0
        assert relative_error(maps[f"stage{stage}"], theirs[after]) < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_forward_and_backward_equal_the_plain_layers(size: tuple[int, int], batch: int) -> None:
    backbone, images = fast_like(PAIR), torch.randn(batch, 3, *size)
    ours, grad = with_gradient(backbone, images)
    with torch.no_grad():
        inferred = last_map(backbone, images)
    with plain(backbone):
        expected, expected_grad = with_gradient(backbone, images)
    assert relative_error(ours, expected) < 1e-5
    assert relative_error(inferred, expected) < 1e-5
    assert relative_error(grad, expected_grad) < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_bfloat16_is_near_fp32(size: tuple[int, int], batch: int) -> None:
    backbone, images = fast_like(PAIR, scale=0.05), torch.randn(batch, 3, *size)
    with plain(backbone):
        expected, expected_grad = with_gradient(backbone, images)
    with BF16():
        ours, grad = with_gradient(backbone, images)
        with torch.no_grad():
            inferred = last_map(backbone, images)
    assert relative_error(ours, expected) < 1e-2
    assert relative_error(inferred, expected) < 1e-2
    assert relative_error(grad, expected_grad) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("size", [(512, 512), (672, 448)])
def test_vit_b_equals_float64(size: tuple[int, int]) -> None:
    encoder = reference(SAM_VARIANTS["vit_b"], scale=0.02)
    ours = backbone_like(encoder, SAM_VARIANTS["vit_b"])
    ours.encoder.fast = True
    images = torch.randn(1, 3, *size)
    expected = reference_stages(copy.deepcopy(encoder).double(), images.double())[-1]
    with torch.no_grad():
        assert relative_error(ours(images)["stage4"].double(), expected) < 1e-5
        with BF16():
            assert relative_error(ours(images)["stage4"].double(), expected) < 1e-2


@pytest.mark.usefixtures("only_fast")
def test_adapters_gradients_equal_the_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, images = fast_like(TINY), torch.randn(2, 3, 96, 160)
    ftm = FTM(num_layers=TINY.depth, dim=TINY.dim, num_tokens=5, hidden_dim=8, rho_init=0.1)
    tuned = SamBackbone(encoder=backbone.encoder, ftm=ftm, variant=TINY)
    recomputed = [
        SamBackbone(
            encoder=backbone.encoder,
            ftm=ftm,
            variant=TINY,
            activation_checkpointing=True,
            recomputed=part,
        )
        for part in ("layer", "mlp")
    ]

    def gradients(model: SamBackbone) -> list[torch.Tensor]:
        loss = model.train()(images)["stage4"].square().mean()
        return list(torch.autograd.grad(loss, list(ftm.parameters())))

    ours, *again = map(gradients, (tuned, *recomputed))
    monkeypatch.undo()
    with plain(tuned):
        expected = gradients(tuned)
    for mine, layers, mlps, theirs in zip(ours, *again, expected, strict=True):
        assert relative_error(mine, theirs) < 1e-5
        assert torch.equal(mine, layers) and torch.equal(mine, mlps)


@pytest.mark.usefixtures("only_fast")
def test_recomputed_layers_in_bfloat16_keep_no_cast_weights() -> None:
    backbone, images = fast_like(TINY, scale=0.05), torch.randn(1, 3, 96, 160)
    ftm = FTM(num_layers=TINY.depth, dim=TINY.dim, num_tokens=5, hidden_dim=8, rho_init=0.1)

    def gradients(recomputed: str | None) -> tuple[list[torch.Tensor], int]:
        encoder = copy.deepcopy(backbone.encoder)
        model = SamBackbone(
            encoder=encoder,
            ftm=ftm,
            variant=TINY,
            activation_checkpointing=recomputed is not None,
            recomputed=recomputed or "layer",
        ).train()
        with BF16():
            loss = model(images)["stage4"].square().mean()
        found = list(torch.autograd.grad(loss, list(ftm.parameters())))
        kept = [key for layer in encoder._fast_layers for key in layer._derived._known]
        return found, sum("weight" in key for key in kept)

    (ours, kept), (layers, none), (mlps, as_many) = map(gradients, (None, "layer", "mlp"))
    assert kept == as_many > 0 and none == 0
    for mine, layers_one, mlps_one in zip(ours, layers, mlps, strict=True):
        assert torch.equal(mine, mlps_one)
        assert relative_error(mine, layers_one) < 2e-2


@torch.no_grad()
@pytest.mark.parametrize("context", [torch.no_grad, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("strip", [7, 40, 70, 10**6])
def test_strips_of_any_size_give_the_same(
    strip: int, batch: int, context: type[torch.no_grad], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10 by 21 tokens in windows of 8x8: cut at the right and the bottom.
    backbone, images = fast_like(TINY, scale=0.05), torch.randn(batch, 3, 160, 336)
    with plain(backbone):
        expected = backbone(images)
    monkeypatch.setattr(fast_layer, "STRIP", strip)
    with context():
        maps = backbone(images)
    for name, truth in expected.items():
        tolerance = 1e-5 if context is torch.no_grad else 1e-2
        assert relative_error(maps[name].float(), truth) < tolerance, name


@torch.no_grad()
@pytest.mark.usefixtures("only_fast")
def test_what_a_caller_holds_is_not_written_to() -> None:
    backbone = fast_like(TINY)
    tokens = torch.randn(1, 6, 5, TINY.dim)
    before = tokens.clone()
    for layer in (0, 1):  # of windows, and of the whole grid
        out = backbone.encoder.layer(layer, tokens)
        assert not torch.equal(out, before)
        assert torch.equal(tokens, before)
        given = tokens.clone()
        assert backbone.encoder.layer(layer, given, overwrite=True).data_ptr() == given.data_ptr()
        assert torch.equal(given, out)


@torch.no_grad()
@pytest.mark.usefixtures("only_fast")
def test_maps_of_earlier_stages_are_not_written_to() -> None:
    backbone, images, seen = fast_like(TINY), torch.randn(2, 3, 64, 48), []

    def note(stage: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(x.clone())
        return x, x

    for tokens, stage in zip(backbone(images, note).values(), range(5), strict=True):
        assert torch.equal(tokens.permute(0, 2, 3, 1), seen[stage])


@torch.no_grad()
def test_within_a_stage_tokens_are_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, layer, seen = fast_like(TINY), SamEncoder.layer, []

    def note(
        self: SamEncoder, index: int, tokens: torch.Tensor, *, overwrite: bool
    ) -> torch.Tensor:
        seen.append(overwrite)
        return layer(self, index, tokens, overwrite=overwrite)

    monkeypatch.setattr(SamEncoder, "layer", note)
    backbone(torch.randn(1, 3, 64, 48))
    assert seen == [False, True] * 4


def test_strips_end_with_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_layer, "STRIP", 70)
    tokens = torch.empty(1, 20, 10, 4)
    assert list(fast_layer._strips(tokens, 8)) == [slice(0, 8), slice(8, 16), slice(16, 20)]
    assert list(fast_layer._strips(tokens, 1)) == [slice(0, 6), slice(6, 13), slice(13, 20)]
    assert list(fast_layer._images_at_once(torch.empty(3, 5, 6, 4))) == [slice(0, 2), slice(2, 3)]


@pytest.mark.usefixtures("only_fast")
def test_tokens_with_a_graph_are_not_written_to() -> None:
    backbone = fast_like(TINY)
    tokens = torch.randn(1, 6, 5, TINY.dim, requires_grad=True)
    before = tokens.detach().clone()
    backbone.encoder.layer(0, tokens, overwrite=True).sum().backward()
    assert torch.equal(tokens.detach(), before)


@torch.no_grad()
@pytest.mark.parametrize("context", [torch.no_grad, BF16], ids=["fp32", "bf16"])
def test_weights_that_are_loaded_later_count(context: type[torch.no_grad]) -> None:
    backbone, images = fast_like(TINY), torch.randn(1, 3, 64, 48)
    other = fast_like(TINY)
    with context():
        before = backbone(images)["stage4"]
        backbone.encoder.load_state_dict(other.encoder.state_dict())
        after, expected = backbone(images)["stage4"], other(images)["stage4"]
    assert torch.equal(after, expected) and not torch.equal(after, before)


@torch.no_grad()
def test_copies_follow_their_own_weights() -> None:
    backbone, images = fast_like(TINY), torch.randn(1, 3, 64, 48)
    with BF16():
        before = backbone(images)["stage4"]
        for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
            assert torch.equal(twin(images)["stage4"], before)
            twin.encoder.blocks[0].mlp.lin1.weight += 1
            assert not torch.equal(twin(images)["stage4"], before)
            assert torch.equal(backbone(images)["stage4"], before)


def test_state_is_the_plain_encoders() -> None:
    backbone = fast_like(TINY)
    with torch.no_grad(), BF16():
        backbone(torch.randn(1, 3, 32, 32))
    assert set(backbone.encoder.state_dict()) == set(SamEncoder(TINY).state_dict())
    assert not list(backbone.encoder.buffers())


def test_a_sam_that_trains_takes_the_plain_layers_in_training_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = backbone_like(reference(TINY), TINY)
    backbone.encoder.fast = True
    images = torch.randn(1, 3, 32, 32)
    backbone(images)["stage4"].sum().backward()
    assert all(p.grad is not None for p in backbone.encoder.blocks.parameters())
    monkeypatch.setattr(SamBlock, "forward", None)
    with torch.no_grad():
        backbone(images)
    with pytest.raises(TypeError):
        backbone(images)


@torch.no_grad()
def test_a_traced_graph_holds_plain_operators_and_is_right() -> None:
    backbone, images = fast_like(TINY), torch.randn(1, 3, 64, 48)
    expected = backbone(images)["stage4"]
    exported = torch.export.export(backbone, (images,))
    names = {str(node.target) for node in exported.graph.nodes}
    assert any("scaled_dot_product" in name for name in names)
    assert not any("mkldnn" in name for name in names)
    assert relative_error(exported.module()(images)["stage4"], expected) < 1e-5
