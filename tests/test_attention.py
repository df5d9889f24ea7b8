"""Every way of SAM's attention against its formula, and segment_anything's own."""

from __future__ import annotations

import pytest
import torch
from attention_cases import LAYOUTS, Case
from conftest import randomise, relative_error
from segment_anything.modeling.image_encoder import Attention, window_partition

from schnet.modeling.attention import attend_plain, choose_way
from schnet.modeling.positions import Positions


@pytest.mark.parametrize(("grid", "window"), LAYOUTS)
@pytest.mark.parametrize("way", ["masked", "folded", "tiled"])
@pytest.mark.parametrize("batch", [1, 3])
def test_ways_equal_the_formula(
    way: str, grid: tuple[int, int], window: tuple[int, int], batch: int
) -> None:
    case = Case.draw(grid, window, batch)
    expected, expected_grad = case.run("plain", torch.float64)
    out, grad = case.run(way)
    assert out.shape == expected.shape
    assert relative_error(out.double(), expected) < 1e-5
    assert relative_error(grad.double(), expected_grad) < 1e-5


@pytest.mark.parametrize(("grid", "window"), LAYOUTS)
@pytest.mark.parametrize("way", ["masked", "folded", "tiled"])
def test_ways_equal_the_formula_in_bfloat16(
    way: str, grid: tuple[int, int], window: tuple[int, int]
) -> None:
    case = Case.draw(grid, window)
    expected, expected_grad = case.run("plain")
    out, grad = case.run(way, torch.bfloat16)
    assert out.dtype == grad.dtype == torch.bfloat16
    assert relative_error(out.float(), expected) < 2e-2
    assert relative_error(grad.float(), expected_grad) < 2e-2


@torch.no_grad()
def test_the_formula_is_segment_anythings() -> None:
    theirs = randomise(Attention(16, 2, use_rel_pos=True, input_size=(6, 5)), scale=0.5)
    tokens = torch.randn(3, 6, 5, 16)
    qkv = theirs.qkv(tokens).flatten(1, 2).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    positions = Positions.gather(theirs.rel_pos_h, theirs.rel_pos_w, (6, 5))
    out = attend_plain(*qkv, positions).transpose(1, 2).reshape(3, 6, 5, 16)
    assert relative_error(theirs.proj(out), theirs(tokens)) < 1e-5


def test_padding_counts_as_keys() -> None:
    case = Case.draw((5, 3), (8, 8))
    windows, _ = window_partition(case.qkv - case.padding, 8)
    qkv = (windows + case.padding).flatten(1, 2).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    whole = attend_plain(*qkv, case.positions).transpose(1, 2).reshape(2, 8, 8, 16)
    for way in ("plain", "tiled"):
        assert relative_error(case.run(way)[0], whole[:, :5, :3]) < 1e-5
    other = Case(case.qkv, case.padding + 1, case.positions, case.grad)
    assert relative_error(other.run("tiled")[0], whole[:, :5, :3]) > 1e-2


@pytest.mark.parametrize(
    ("device", "dtype", "window", "way"),
    [
        ("cpu", torch.float32, (14, 14), "tiled"),
        ("cpu", torch.bfloat16, (64, 64), "tiled"),
        ("cuda", torch.bfloat16, (14, 14), "folded"),
        ("cuda", torch.float16, (64, 64), "folded"),
        ("cuda", torch.bfloat16, (128, 128), "masked"),
        ("cuda", torch.float32, (14, 14), "masked"),
        ("mps", torch.bfloat16, (14, 14), "masked"),
    ],
)
def test_the_way_is_chosen_by_device_and_size(
    device: str, dtype: torch.dtype, window: tuple[int, int], way: str
) -> None:
    class Tensor:
        """What the choice looks at."""

    qkv = Tensor()
    qkv.dtype, qkv.shape = dtype, (1, 64, 64, 3 * 12 * 64)
    positions = Positions(*(torch.empty(1, side, 64) for side in window))
    assert choose_way(device, qkv, positions, 12) == way
