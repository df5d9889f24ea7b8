"""FTM against its formula, and where its gradients are zero."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from conftest import randomise, relative_error
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from schnet.modeling import ftm as ftm_module
from schnet.modeling import ftm_kernels
from schnet.modeling.ftm import FTM


def _ftm(rho: float) -> FTM:
    return FTM(num_layers=3, dim=8, num_tokens=5, hidden_dim=4, rho_init=rho)


def test_equals_the_formula_of_figure_4() -> None:
    ftm = _ftm(0.7)
    f = torch.randn(2, 3, 4, 8)
    result = ftm(1, f)
    tokens = ftm.tokens[1]
    for b in range(2):
        for y in range(3):
            for x in range(4):
                weights = torch.exp(tokens @ f[b, y, x] / 8**0.5)
                informed = f[b, y, x] + (weights / weights.sum()) @ tokens
                expected = f[b, y, x] + 0.7 * ftm.mlp(informed)
                assert torch.allclose(result[b, y, x], expected, atol=1e-5)


def test_rho_zero_is_the_identity_to_the_bit() -> None:
    f = torch.randn(1, 2, 2, 8)
    assert torch.equal(_ftm(0.0)(0, f), f)


def test_layers_share_the_mlp_but_not_tokens_or_rho() -> None:
    ftm = _ftm(1.0)
    f = torch.randn(1, 2, 2, 8)
    before = ftm(2, f)
    with torch.no_grad():
        ftm.tokens[0] += 1
        ftm.rho[0] += 1
    assert torch.equal(ftm(2, f), before)
    with torch.no_grad():
        ftm.mlp[0].weight += 1
    assert not torch.equal(ftm(2, f), before)


def test_gradients_at_rho_zero_are_zero_but_present_and_appear_from_the_default() -> None:
    for rho, expect_zero in ((0.0, True), (1e-3, False)):
        ftm = _ftm(rho)
        sum(ftm(i, torch.randn(1, 2, 2, 8)).square().sum() for i in range(3)).backward()
        for parameter in (ftm.tokens, *ftm.mlp.parameters()):
            assert parameter.grad is not None
            assert bool((parameter.grad == 0).all()) is expect_zero
        assert ftm.rho.grad is not None
        assert (ftm.rho.grad != 0).all()


def test_tokens_start_uniform_within_the_bound() -> None:
    ftm = FTM(num_layers=2, dim=768, num_tokens=100, hidden_dim=4, rho_init=1e-3)
    bound = (6 / (3 * 16**2 + 768)) ** 0.5
    assert ftm.tokens.abs().max() <= bound
    assert ftm.tokens.abs().max() > 0.99 * bound
    assert abs(ftm.tokens.std().item() - bound / 3**0.5) < 0.01 * bound


def _plain(ftm: FTM, layer: int, f: torch.Tensor) -> torch.Tensor:
    """The formula of Figure 4 as it reads; autocast and autograd see to the rest."""
    tokens = ftm.tokens[layer].to(f.dtype)
    attention = (f @ tokens.t() / f.shape[-1] ** 0.5).softmax(dim=-1, dtype=torch.float32)
    informed = f + attention.to(f.dtype) @ tokens
    return f + ftm.rho[layer].to(f.dtype) * ftm.mlp(informed)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", [(1, 5, 7), (3, 6, 3)])
def test_outputs_and_gradients_are_those_of_the_plain_formula(
    autocast: bool, size: tuple[int, int, int]
) -> None:
    ftm = FTM(num_layers=3, dim=24, num_tokens=5, hidden_dim=16, rho_init=0.3)
    with torch.no_grad():
        ftm.tokens *= 5  # far from uniform attention
    f, grad = torch.randn(*size, 24, requires_grad=True), torch.randn(*size, 24)
    wanted = [f, *ftm.parameters()]

    def run(tune: Callable[[int, torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = tune(2, tune(0, f))
            with torch.no_grad():
                alone = tune(2, tune(0, f))
        assert {y.dtype, alone.dtype} == {torch.float32}, "the residual stream stays fp32"
        return [y.detach(), alone, *torch.autograd.grad(y, wanted, grad)]

    expected = run(lambda layer, x: _plain(ftm, layer, x))
    for ours, theirs in zip(run(ftm), expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert relative_error(ours, theirs) < (2e-2 if autocast else 1e-5)
    assert (torch.autograd.grad(ftm(2, f).sum(), ftm.tokens)[0][:2] == 0).all()


def test_gradients_are_right_where_only_some_are_wanted() -> None:
    ftm, f = _ftm(0.3), torch.randn(1, 2, 3, 8)
    ftm(0, f).sum().backward()
    gradients = {name: p.grad.clone() for name, p in ftm.named_parameters()}
    both = f.clone().requires_grad_()
    ftm(0, both).sum().backward()
    for name, parameter in ftm.named_parameters():
        assert torch.allclose(parameter.grad, 2 * gradients[name])
    ftm.requires_grad_(False)
    alone = f.clone().requires_grad_()
    ftm(0, alone).sum().backward()
    assert torch.equal(alone.grad, both.grad)


def test_training_keeps_tokens_and_hidden_layer_but_no_second_map() -> None:
    ftm, f = _ftm(0.3), torch.randn(1, 4, 4, 8)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = ftm(0, f)
    own = {p.untyped_storage().data_ptr() for p in (result, *ftm.parameters())}
    others = [t for t in kept if t.untyped_storage().data_ptr() not in own]
    assert sum(t.numel() for t in others) == 4 * 4 * (5 + 4)


def _step(ftm: FTM) -> None:
    optimizer = torch.optim.AdamW(ftm.parameters(), lr=0.1)
    ftm(1, torch.randn(1, 2, 2, 8)).square().sum().backward()
    optimizer.step()


def _load(ftm: FTM) -> None:
    ftm.load_state_dict(randomise(_ftm(0.3)).state_dict())


def _replace(ftm: FTM) -> None:
    ftm.mlp[0].weight = torch.nn.Parameter(torch.randn(4, 8))


def _double(ftm: FTM) -> None:
    ftm.double()


@pytest.mark.parametrize("change", [_step, _load, _replace, _double])
@torch.no_grad()
def test_what_inference_remembers_is_never_stale(change: Callable[[FTM], None]) -> None:
    ftm, f = _ftm(0.3), torch.randn(1, 2, 3, 8)
    before = ftm(1, f)
    copied = copy.deepcopy(ftm)
    with torch.enable_grad():
        change(ftm)
    f = f.to(ftm.rho.dtype)
    assert not torch.allclose(ftm(1, f).float(), before) or change is _double
    assert torch.allclose(ftm(1, f), _plain(ftm, 1, f), atol=1e-6)
    assert torch.allclose(copied(1, f.float()), before)
    assert set(ftm.state_dict()) == {"tokens", "rho", *(f"mlp.{n}" for n in ftm.mlp.state_dict())}


@torch.no_grad()
def test_copies_and_pickles_remember_nothing() -> None:
    ftm, f = _ftm(0.3), torch.randn(1, 2, 3, 8)
    ftm(0, f)
    ftm.tokens += 1
    for other in (copy.deepcopy(ftm), pickle.loads(pickle.dumps(ftm))):
        assert torch.allclose(other(0, f), _plain(ftm, 0, f), atol=1e-6)
        other.tokens += 1
        assert torch.allclose(other(0, f), _plain(other, 0, f), atol=1e-6)
        assert not torch.allclose(other(0, f), ftm(0, f))


@torch.no_grad()
def test_weights_are_folded_once_for_each_layer_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    ftm, f = _ftm(0.3), torch.randn(1, 2, 3, 8)
    folds: list[torch.dtype] = []

    def fold(weights: ftm_kernels.FTMWeights, dtype: torch.dtype) -> ftm_kernels.FoldedWeights:
        folds.append(dtype)
        return original(weights, dtype)

    original = ftm_kernels.fold
    monkeypatch.setattr(ftm_module, "fold", fold)
    for enabled in (False, True, False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert ftm(0, f).dtype == torch.float32
    assert folds == [torch.float32, torch.bfloat16]
    ftm(1, f)
    assert len(folds) == 3


@torch.no_grad()
def test_fake_tensors_and_inference_tensors_are_not_remembered() -> None:
    ftm, f = _ftm(0.3), torch.randn(1, 2, 3, 8)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert ftm(0, mode.from_tensor(f)).shape == f.shape
    assert torch.allclose(ftm(0, f), _plain(ftm, 0, f), atol=1e-6)
    with torch.inference_mode():
        inner = _ftm(0.3)
        before = inner(0, f)
        inner.tokens += 1
        assert not torch.allclose(inner(0, f), before)


def test_export_gives_the_same_numbers() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ftm = _ftm(0.3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.ftm(1, x)

    layer, f = Layer(), torch.randn(1, 2, 3, 8)
    with torch.no_grad():
        expected = layer(f)
        exported = torch.export.export(layer, (f,)).module()
        assert torch.allclose(exported(f), expected, atol=1e-6)
        assert torch.allclose(layer(f), expected, atol=1e-6)


def test_checkpointing_gives_the_same_gradients() -> None:
    ftm, f = _ftm(0.3), torch.randn(2, 3, 3, 8)
    ftm(2, f).square().sum().backward()
    expected = [p.grad.clone() for p in ftm.parameters()]
    ftm.zero_grad()
    checkpoint(ftm, 2, f, use_reentrant=False).square().sum().backward()
    assert all(torch.equal(p.grad, e) for p, e in zip(ftm.parameters(), expected, strict=True))
