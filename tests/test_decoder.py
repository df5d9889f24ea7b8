"""The boundary decoder: one memory layout from images to features, whatever that of the input."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import randomise, relative_error

from schnet.modeling.decoder import BoundaryDecoder


def _decoder() -> BoundaryDecoder:
    decoder = BoundaryDecoder(
        in_features=("stage0", "stage1"),
        in_channels=(8, 12),
        fuse_dim=16,
        fuse_blocks=1,
        stem_dims=(8, 8, 16),
        stem_blocks=1,
    )
    randomise(decoder)
    return decoder


def _inputs(batch: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    tokens = {"stage0": torch.randn(batch, 3, 5, 8), "stage1": torch.randn(batch, 3, 5, 12)}
    return {n: t.permute(0, 3, 1, 2) for n, t in tokens.items()}, torch.randn(batch, 3, 48, 80)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
def test_features_and_gradients_are_those_of_float64(batch: int, autocast: bool) -> None:
    decoder, (features, images) = _decoder(), _inputs(batch)
    exact = copy.deepcopy(decoder).double()
    expected = exact({n: t.double() for n, t in features.items()}, images.double())
    grad = torch.randn(expected.shape)
    expected.backward(grad.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = decoder(features, images)
    result.backward(grad.to(result.dtype))
    assert relative_error(result.detach().double(), expected.detach()) < (
        3e-2 if autocast else 1e-5
    )
    ours, theirs = (
        torch.cat([p.grad.double().flatten() for p in module.parameters()])
        for module in (decoder, exact)
    )
    assert relative_error(ours, theirs) < (8e-2 if autocast else 1e-5)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_every_convolution_sees_channels_last(autocast: bool) -> None:
    decoder, (features, images) = _decoder(), _inputs(2)
    seen = []

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    convolutions = [m for m in decoder.modules() if isinstance(m, torch.nn.modules.conv._ConvNd)]
    for module in convolutions:
        module.register_forward_pre_hook(note)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = decoder(features, images)
    assert seen == [True] * len(convolutions)
    assert result.is_contiguous(memory_format=torch.channels_last)
