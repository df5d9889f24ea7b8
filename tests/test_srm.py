"""SimModule and SRM against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import randomise, relative_error

from schnet.modeling.resize import resize_map
from schnet.modeling.srm import SRM, SimModule


def _srm() -> SRM:
    return SRM(dim=8, clip_dim=6, embed_dim=5, bottleneck_dim=4)


def test_similarity_equals_its_formula_and_normalises_the_class_embedding() -> None:
    cls, text = torch.randn(2, 5), F.normalize(torch.randn(3, 5), dim=1)
    result = SimModule()(cls, text, torch.tensor(14.0))
    for b in range(2):
        scores = torch.stack([14.0 * (cls[b] / cls[b].norm()) @ t for t in text])
        weights = torch.exp(scores) / torch.exp(scores).sum()
        assert torch.allclose(result[b], sum(w * t for w, t in zip(weights, text, strict=True)))
    assert torch.allclose(SimModule()(3 * cls, text, torch.tensor(14.0)), result, atol=1e-6)


def test_a_fresh_srm_is_the_identity_to_the_bit() -> None:
    sam = torch.randn(2, 3, 4, 8)
    assert torch.equal(_srm()(sam, torch.randn(2, 6, 7, 5), torch.randn(2, 5)), sam)


def test_srm_equals_its_formula() -> None:
    srm = _srm()
    torch.nn.init.normal_(srm.up.weight)
    torch.nn.init.normal_(srm.up.bias)
    sam, clip, sim = torch.randn(2, 3, 4, 8), torch.randn(2, 6, 3, 4), torch.randn(2, 5)
    v = torch.einsum("bdhw,cd->bhwc", clip, srm.project.weight[:, :, 0, 0]) + srm.project.bias
    gate = sim @ srm.gate.weight.t() + srm.gate.bias
    z = sam + v * gate[:, None, None, :]
    expected = sam + srm.up(F.gelu(srm.down(F.layer_norm(z, (8,), srm.norm.weight, srm.norm.bias))))
    assert torch.allclose(srm(sam, clip, sim), expected, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("clip_size", [(2, 3), (5, 7), (9, 8)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layout_of_clips_map_changes_nothing(
    clip_size: tuple[int, int], channels_last: bool, autocast: bool
) -> None:
    srm = _srm()
    randomise(srm)
    sam = torch.randn(3, 5, 7, 8, requires_grad=True)
    clip, sim = torch.randn(3, 6, *clip_size), torch.randn(3, 5)
    v = resize_map(srm.project(clip), (5, 7)).permute(0, 2, 3, 1)
    z = sam + v * srm.gate(sim)[:, None, None, :]
    expected = sam + srm.up(F.gelu(srm.down(srm.norm(z))))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = srm(sam, clip.contiguous(memory_format=layout), sim)
    assert result.dtype == torch.float32
    wanted, grad = [sam, *srm.parameters()], torch.randn_like(sam)
    theirs = [expected, *torch.autograd.grad(expected, wanted, grad)]
    ours = [result, *torch.autograd.grad(result, wanted, grad)]
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a.detach(), b.detach()) < (5e-2 if autocast else 1e-5)


@pytest.mark.parametrize("clip_size", [(2, 3), (9, 8)])
def test_semantics_lie_in_memory_as_sams_map_does(clip_size: tuple[int, int]) -> None:
    assert _srm()._on_grid(torch.randn(2, 6, *clip_size), (4, 5)).is_contiguous()


@pytest.mark.parametrize("clip_size", [(2, 3), (9, 8), (1, 20)])
def test_projecting_and_resizing_commute(clip_size: tuple[int, int]) -> None:
    srm = _srm()
    clip = torch.randn(1, 6, *clip_size)
    expected = resize_map(srm.project(clip), (4, 5)).permute(0, 2, 3, 1)
    assert torch.allclose(srm._on_grid(clip, (4, 5)), expected, atol=1e-5)


def test_shrinking_averages_all_of_the_map() -> None:
    spike = torch.zeros(1, 1, 8, 8)
    spike[0, 0, 0, 0] = 64.0
    assert resize_map(spike, (2, 2))[0, 0, 0, 0] > 0


def test_only_up_learns_in_the_first_step_and_all_learn_after_it() -> None:
    srm = _srm()
    optimizer = torch.optim.SGD(srm.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        sam, clip, sim = torch.randn(2, 3, 4, 8), torch.randn(2, 6, 3, 4), torch.randn(2, 5)
        srm(sam, clip, sim).square().sum().backward()
        for name, parameter in srm.named_parameters():
            assert parameter.grad is not None, name
            learns = bool((parameter.grad != 0).any())
            assert learns is (step == 1 or name.startswith("up.")), (step, name)
        optimizer.step()
