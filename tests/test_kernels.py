"""The CPU's kernels against plain PyTorch: linear layers, tiles of any size, what they keep."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from attention_cases import HEADS, LAYOUTS, Case
from conftest import relative_error

from schnet.modeling import kernels
from schnet.modeling.attention import attend
from schnet.modeling.kernels import FrozenLinear, TiledAttention, linear, onednn_takes, pack

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(7, 24), (2, 3, 5, 24), (1, 24), (0, 24)])
def test_linear_equals_pytorchs(dtype: torch.dtype, gelu: bool, shape: tuple[int, ...]) -> None:
    x, weight, bias = torch.randn(shape), torch.randn(40, 24), torch.randn(40)
    expected = F.linear(x.double(), weight.double(), bias.double())
    expected = F.gelu(expected) if gelu else expected
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    forms = [weight, weight.t().contiguous().t()]
    if onednn_takes(x):
        forms.append(pack(weight, 7))
    for form in forms:
        out = linear(x, form, bias, gelu=gelu)
        assert out.dtype == dtype and out.shape == expected.shape
        if x.numel():
            assert relative_error(out.double(), expected) < TOLERANCE[dtype]


def test_onednn_is_left_out_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(4, 8), torch.randn(6, 8)
    assert not onednn_takes(x.double()) and not onednn_takes(x.to("meta"))
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "onednn_takes", lambda x: False)
        assert torch.equal(linear(x, weight, None), F.linear(x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_linear_has_its_inputs_gradient(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 24, dtype=dtype, requires_grad=True)
    weight, bias = torch.randn(40, 24, dtype=dtype), torch.randn(40, dtype=dtype)
    grad = torch.randn(2, 3, 40, dtype=dtype)
    (expected,) = torch.autograd.grad(F.linear(x, weight, bias), x, grad)
    turned = weight.t()
    for forward, back in ((weight, turned), (pack(weight, 6), pack(turned, 6))):
        if not onednn_takes(x):
            pytest.skip("oneDNN has no kernel for this type on this CPU")
        out = FrozenLinear.apply(x, forward, bias, back)
        (ours,) = torch.autograd.grad(out, x, grad.expand(grad.shape))
        assert ours.dtype == dtype
        assert relative_error(ours.float(), expected.float()) < TOLERANCE[dtype]


@pytest.mark.parametrize(("grid", "window"), LAYOUTS)
@pytest.mark.parametrize("tile_bytes", [1, 5000, 30000])
def test_tiles_of_any_size_give_the_same(
    grid: tuple[int, int],
    window: tuple[int, int],
    tile_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case.draw(grid, window)
    expected, expected_grad = case.run("plain")
    monkeypatch.setattr(kernels, "TILE_BYTES", tile_bytes)
    out, grad = case.run("tiled")
    assert relative_error(out, expected) < 1e-5
    assert relative_error(grad, expected_grad) < 1e-5


def test_gradcheck_of_tiled_attention() -> None:
    case = Case.draw((5, 3), (4, 4), batch=1)
    positions = case.positions.to(torch.float64)
    qkv = case.qkv.double().requires_grad_()
    torch.autograd.gradcheck(
        lambda x: TiledAttention.apply(
            x, case.padding.double(), positions.height, positions.width, HEADS
        ),
        qkv,
    )


def test_tiled_attention_keeps_its_input_alone() -> None:
    case = Case.draw((28, 28), (28, 28), batch=1)
    kept = []
    qkv = case.qkv.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        case_out = TiledAttention.apply(
            qkv, case.padding, case.positions.height, case.positions.width, HEADS
        )
    assert case_out.requires_grad
    assert sum(t.numel() for t in kept) < qkv.numel() * 1.6 < HEADS * (28 * 28) ** 2


@pytest.mark.parametrize(("grid", "window"), LAYOUTS)
@pytest.mark.parametrize("tile_bytes", [1, 5000, 8 << 20])
def test_attention_in_the_memory_of_its_queries(
    grid: tuple[int, int],
    window: tuple[int, int],
    tile_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case.draw(grid, window)
    qkv, before = case.qkv.clone(), case.qkv.clone()
    expected, _ = case.run("plain")
    monkeypatch.setattr(kernels, "TILE_BYTES", tile_bytes)
    out = attend(qkv, case.padding, case.positions, HEADS, "tiled")
    assert relative_error(out, expected) < 1e-5
    assert out.untyped_storage().data_ptr() == qkv.untyped_storage().data_ptr()
    wide = out.shape[-1]
    assert torch.equal(qkv[..., wide:], before[..., wide:])


def test_a_graph_of_attention_leaves_the_queries_alone() -> None:
    case = Case.draw((5, 3), (4, 4))
    qkv = case.qkv.clone().requires_grad_()
    attend(qkv, case.padding, case.positions, HEADS, "tiled")
    assert torch.equal(qkv.detach(), case.qkv)
