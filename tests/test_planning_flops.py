"""The planned FLOPs beside counts by hand and PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import randomise
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch.utils.flop_counter import FlopCounterMode

from schnet.planning.model import PlannedModel, build_planned_model
from schnet.planning.step import StepTrace, trace_step
from schnet.planning.substitutes import CudaChoices
from schnet.planning.trace import OperationTrace

DIM, HEADS, WINDOW = 96, 3, 8  # of the tiny SAM
PLAIN = ("MODEL.SAM.FAST", "False")


@pytest.fixture
def planned(tiny_cfg: Callable[..., CfgNode]) -> PlannedModel:
    return build_planned_model(tiny_cfg())


def traced(planned: PlannedModel, size: tuple[int, int] = (96, 64), batch: int = 2) -> StepTrace:
    return trace_step(planned, size, batch, autocast_dtype=None)


@pytest.mark.parametrize(("layer", "is_global"), [(0, False), (1, True)])
def test_a_vit_block_by_hand(planned: PlannedModel, layer: int, is_global: bool) -> None:
    height, width = 12, 20
    block = planned.model.backbone.encoder.blocks[layer]
    with planned.mode, CudaChoices(), OperationTrace() as trace:
        x = torch.zeros(1, height, width, DIM, requires_grad=True)
        y = block(x)
        forward = trace.flops
        y.backward(torch.zeros_like(y))
        backward = trace.flops - forward

    # Attention sees the grid, or windows that the grid is padded to: 16 x 24 in six of 8 x 8.
    grids, side = (1, (height, width)) if is_global else (6, (WINDOW, WINDOW))
    tokens = side[0] * side[1]
    linear = 2 * grids * tokens * (3 * DIM * DIM + DIM * DIM)
    mlp = 2 * height * width * (2 * 4 * DIM * DIM)
    bias = 2 * grids * tokens * DIM * (side[0] + side[1])
    products = 2 * grids * tokens**2 * DIM  # one of the size of Q K^T, over all heads
    assert forward == linear + mlp + bias + 2 * products
    # Frozen weights: gradients of the inputs only, as large as the forward pass; the fused kernel
    # computes the scores once more beside four products.
    assert backward == linear + mlp + bias + 5 * products
    assert HEADS == block.attn.num_heads


def test_a_fast_layer_by_hand(planned: PlannedModel) -> None:
    height, width, windows, keys = 12, 20, 6, WINDOW**2
    encoder = planned.model.backbone.encoder
    encoder.run_as_on("cuda")
    with planned.mode, CudaChoices(), OperationTrace() as trace:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = torch.zeros(1, height, width, DIM, requires_grad=True)
            y = encoder.layer(0, x)
        forward = trace.flops
        y.backward(torch.zeros_like(y))
        backward = trace.flops - forward
    encoder.run_as_on(None)
    # The linear layers see real tokens alone; attention whole windows, its heads longer by 8 + 8.
    linear = 2 * height * width * 12 * DIM * DIM
    bias = 2 * windows * keys * DIM * 2 * WINDOW
    products = 2 * windows * keys**2 * (DIM + HEADS * 2 * WINDOW)
    assert forward == linear + bias + 2 * products
    assert backward == linear + bias + 5 * products


def test_ftm_by_hand(tiny_cfg: Callable[..., CfgNode]) -> None:
    planned = build_planned_model(tiny_cfg(["MODEL.FTM.NUM_TOKENS", "7"]))
    tokens, m, r = 6 * 4, 7, 8
    with planned.mode, OperationTrace() as trace:
        x = torch.zeros(1, 6, 4, DIM, requires_grad=True)
        y = planned.model.backbone.ftm(0, x)
        forward = trace.flops
        y.backward(torch.zeros_like(y))
        backward = trace.flops - forward
    # [T | W1] and W2 on the features, T W1^T on the attention.
    assert forward == 2 * tokens * (DIM * (m + 2 * r) + m * r) + folding(m, r)[0]
    # Tokens and MLP are trained: gradients of both factors; f is found again through the MLP.
    assert (
        backward
        == 2 * tokens * (2 * DIM * (m + 2 * r) + 2 * m * r + (m + r) * r) + (folding(m, r)[1])
    )


def folding(m: int, r: int) -> tuple[int, int]:
    """What a layer of FTM takes once a step, forward and backward, however many the images."""
    product = 2 * m * r * DIM
    return product, 3 * product + 2 * (m + r) * r * DIM


def test_the_whole_step_is_pytorchs_count(tiny_cfg: Callable[..., CfgNode]) -> None:
    cfg = tiny_cfg([*PLAIN])  # PyTorch's counter does not know the operators of the CPU's kernels
    model = randomise(build_model(cfg)).train()
    batch = [
        {
            "image": torch.randint(0, 256, (3, 96, 64), dtype=torch.uint8),
            "sem_seg": torch.randint(0, 4, (96, 64), dtype=torch.uint8),
        }
        for _ in range(2)
    ]
    with FlopCounterMode(display=False) as counter:
        losses = model(batch)
        forward = counter.get_total_flops()
        torch.stack(list(losses.values())).sum().backward()
    backward = counter.get_total_flops() - forward
    found = trace_step(build_planned_model(cfg), (96, 64), 2, autocast_dtype=None, as_cuda=False)
    assert (found.forward_flops, found.backward_flops) == (forward, backward)


@pytest.mark.parametrize("opts", [(), PLAIN], ids=["fast", "plain"])
def test_flops_are_linear_in_the_images_and_of_plain_layers_the_same_under_autocast(
    tiny_cfg: Callable[..., CfgNode], opts: tuple[str, ...]
) -> None:
    planned = build_planned_model(tiny_cfg(list(opts)))
    one, three = traced(planned, batch=1), traced(planned, batch=3)
    forward, backward = (8 * flops for flops in folding(5, 8))
    assert three.forward_flops - forward == 3 * (one.forward_flops - forward)
    assert three.backward_flops - backward == 3 * (one.backward_flops - backward)
    cast = trace_step(planned, (96, 64), 1, autocast_dtype=torch.bfloat16)
    if opts:
        assert (cast.forward_flops, cast.backward_flops) == (one.forward_flops, one.backward_flops)
    else:
        # In 16 bits the positions are folded into longer heads.
        assert cast.forward_flops > one.forward_flops
    assert cast.kept_bytes != one.kept_bytes


def test_recomputed_layers_are_counted(tiny_cfg: Callable[..., CfgNode]) -> None:
    plain = build_planned_model(tiny_cfg())
    checkpointed = build_planned_model(tiny_cfg(["MODEL.SAM.ACTIVATION_CHECKPOINTING", "True"]))
    before, after = traced(plain), traced(checkpointed)
    assert after.forward_flops == before.forward_flops
    more = after.backward_flops - before.backward_flops
    # The layers with their FTM, at most all of them: recomputing stops at the last kept tensor.
    encoder, ftm = plain.model.backbone.encoder, plain.model.backbone.ftm
    with plain.mode, CudaChoices(), torch.no_grad(), OperationTrace() as trace:
        x = torch.zeros(2, 6, 4, DIM)
        for number in range(len(encoder.blocks)):
            x = ftm(number, encoder.layer(number, x))
    assert 0.95 * trace.flops < more <= trace.flops


def test_trained_sam_has_weight_gradients(tiny_cfg: Callable[..., CfgNode]) -> None:
    trained = build_planned_model(tiny_cfg(["MODEL.SAM.FREEZE", "False"]))
    planned = build_planned_model(tiny_cfg([*PLAIN]))
    assert trained.trained > planned.trained
    frozen_step, trained_step = traced(planned), traced(trained)
    assert trained_step.forward_flops == frozen_step.forward_flops
    assert trained_step.backward_flops > 1.3 * frozen_step.backward_flops
