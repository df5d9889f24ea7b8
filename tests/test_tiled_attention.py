"""The CPU's kernel of SAM's attention: tiles of any size, rows of queries, what it keeps."""

from __future__ import annotations

import pytest
import torch
from attention_cases import HEADS, LAYOUTS, Case
from conftest import relative_error

from schnet.modeling import tiled_attention
from schnet.modeling.attention import attend
from schnet.modeling.tiled_attention import TiledAttention, attend_rows


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
    monkeypatch.setattr(tiled_attention, "TILE_BYTES", tile_bytes)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tile_bytes", [1, 5000, 8 << 20])
@pytest.mark.parametrize("grid", [(13, 7), (3, 40), (1, 1)])
def test_some_rows_of_queries_attend_to_the_whole_grid(
    grid: tuple[int, int], tile_bytes: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case.draw(grid, grid)
    expected, _ = case.run("plain")
    monkeypatch.setattr(tiled_attention, "TILE_BYTES", tile_bytes)
    positions = case.positions.to(dtype)
    queries, keys, values = case.qkv.to(dtype).chunk(3, dim=-1)
    keys, values = (part.flatten(1, 2).unflatten(-1, (HEADS, -1)) for part in (keys, values))
    keys, values = keys.permute(0, 2, 3, 1).contiguous(), values.transpose(1, 2).contiguous()
    cut = (grid[0] + 1) // 2
    for start, stop in ((0, cut), (cut, grid[0])):
        if start < stop:
            rows = queries[:, start:stop]
            out = attend_rows(rows, keys, values, positions.rows(start, stop))
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2
            assert relative_error(out.float(), expected[:, start:stop]) < tolerance


@pytest.mark.parametrize("threads", [1, 3])
def test_a_tile_has_a_pair_for_each_thread(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    seen: list[torch.Size] = []
    bmm = torch.bmm

    def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append(a.shape)
        return bmm(a, b)

    # A thread's part of a tile may be five rows' scores: the window's seven rows in 4 and 3.
    monkeypatch.setattr(tiled_attention, "TILE_BYTES", 5 * 5 * 7 * 5 * 4)
    monkeypatch.setattr(torch, "bmm", watched)
    case = Case.draw((7, 5), (7, 5), batch=1)
    attend(case.qkv, case.padding, case.positions, HEADS, "tiled")
    assert [shape[0] for shape in seen] == ([1] * 4 if threads == 1 else [2] * 2)
    assert [shape[1] for shape in seen[:2]] == [20, 15]


def test_attention_leaves_its_input_alone() -> None:
    case = Case.draw((5, 3), (4, 4))
    for with_graph in (False, True):
        qkv = case.qkv.clone().requires_grad_(with_graph)
        attend(qkv, case.padding, case.positions, HEADS, "tiled")
        assert torch.equal(qkv.detach(), case.qkv)
