"""FTM against its formula, and where its gradients are zero."""

from __future__ import annotations

import torch

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
