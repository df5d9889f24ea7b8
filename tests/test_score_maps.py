"""Scores made band by band: the values of torch's own resizing, whatever the bands."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from schnet.score_maps import HeldScores, ScoreMap, cropped, resized

# Height and width of the source and of the result; up to a sum of 128 torch has another kernel.
SIZES = [
    ((33, 57), (301, 97)),
    ((128, 96), (131, 40)),
    ((100, 1), (333, 1)),
    ((1, 2), (150, 7)),
    ((40, 30), (3, 200)),
    ((9, 70), (1, 130)),
    ((40, 30), (20, 45)),
    ((7, 5), (1, 1)),
    ((2, 3), (5, 40000)),
]


def interpolated(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]


def in_bands(scores: ScoreMap, step: int) -> torch.Tensor:
    height = scores.shape[1]
    edges = [*range(0, height, step), height]
    with torch.no_grad():
        return torch.cat([scores.rows(a, b).clone() for a, b in itertools.pairwise(edges)], dim=1)


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_bands_are_torchs_values(source: tuple[int, int], size: tuple[int, int], step: int) -> None:
    scores = torch.randn(4, *source)
    wanted = interpolated(scores, size)
    found = in_bands(resized(HeldScores(scores), size), step)
    # On CPUs that multiply and add at once; on others the last bit may differ.
    tolerance = 0.0 if torch.backends.cpu.get_cpu_capability() != "DEFAULT" else 1e-6
    assert torch.allclose(found, wanted, rtol=0, atol=tolerance)
    assert torch.equal(resized(HeldScores(scores), size).whole(), wanted)


@pytest.mark.parametrize("step", [1, 4, 7, 1000])
def test_two_resizes_with_a_crop_between(step: int) -> None:
    scores = torch.randn(5, 24, 20)
    source = resized(HeldScores(scores), (96, 80))
    chain = resized(cropped(source, 3, 5, (90, 71)), (301, 203))
    wanted = interpolated(interpolated(scores, (96, 80))[:, 3:93, 5:76], (301, 203))
    assert chain.shape == (5, 301, 203)
    assert torch.equal(in_bands(chain, step), wanted)
    assert torch.equal(chain.whole(), wanted)


def test_what_is_as_wanted_stays_as_it_is() -> None:
    scores = HeldScores(torch.randn(2, 4, 5))
    assert resized(scores, (4, 5)) is scores and cropped(scores, 0, 0, (4, 5)) is scores


def test_each_source_row_is_asked_for_once() -> None:
    asked: list[tuple[int, int]] = []

    class Source(HeldScores):
        def rows(self, first: int, last: int) -> torch.Tensor:
            asked.append((first, last))
            return super().rows(first, last)

    in_bands(resized(Source(torch.randn(2, 30, 20)), (200, 90)), 7)
    assert [row for first, last in asked for row in range(first, last)] == list(range(30))


def test_half_precision_becomes_single_and_nan_stays() -> None:
    scores = torch.randn(2, 30, 20).bfloat16()
    scores[1, 4, 5] = torch.nan
    found = in_bands(resized(HeldScores(scores), (200, 90)), 16)
    assert found.dtype == torch.float32 and not found[0].isnan().any()
    assert torch.equal(found.isnan(), interpolated(scores.float(), (200, 90)).isnan())


def test_the_whole_is_differentiable() -> None:
    scores = torch.randn(2, 30, 20, requires_grad=True)
    resized(HeldScores(scores), (200, 90)).whole().sum().backward()
    assert scores.grad is not None and scores.grad.sum() == pytest.approx(2 * 200 * 90, rel=1e-4)


def test_bytes_are_those_of_the_largest_step() -> None:
    held = HeldScores(torch.randn(3, 40, 60))
    assert (held.row_bytes, held.whole_bytes) == (4 * 3 * 60, 4 * 3 * 60 * 40)
    smaller, larger = resized(held, (10, 60)), resized(held, (80, 120))
    assert (smaller.row_bytes, smaller.whole_bytes) == (4 * held.row_bytes, held.whole_bytes)
    assert (larger.row_bytes, larger.whole_bytes) == (4 * 3 * 120, 4 * 3 * 120 * 80)
    assert cropped(held, 0, 0, (2, 2)).row_bytes == held.row_bytes


def test_planes_are_what_is_resized_and_compared() -> None:
    # As convolutions in bf16 give them: channels last, which takes three times as long.
    scores = torch.randn(1, 5, 6, 7).contiguous(memory_format=torch.channels_last)[0]
    held = HeldScores(scores)
    assert held.whole().is_contiguous() and resized(held, (12, 14)).whole().is_contiguous()
    assert torch.equal(held.whole(), scores)
