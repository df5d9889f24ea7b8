"""Linear layers of frozen parts against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from schnet.modeling import kernels
from schnet.modeling.kernels import FrozenLinear, linear, onednn_takes, pack

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
