"""The planned memory: what a trace sees, and how it compares with a real step's peak."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measured_step
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch._subclasses.fake_tensor import FakeTensorMode

from schnet.config import load_config
from schnet.errors import InputError
from schnet.planning import step as step_module
from schnet.planning.memory import FRAGMENTATION, HeldMemory, PeakModel, held_memory
from schnet.planning.model import PlannedModel, build_planned_model
from schnet.planning.step import StepTrace, trace_step
from schnet.planning.substitutes import CudaChoices, StaticShapes
from schnet.planning.trace import OperationTrace

ALLOWED_ERROR = 0.20
CHECKPOINTED = ("MODEL.SAM.ACTIVATION_CHECKPOINTING", "True")
MLPS = (*CHECKPOINTED, "MODEL.SAM.RECOMPUTED", "mlp")
# The losses' memory at full resolution is the most of a tiny model's: without it, the layers count.
THIN_LOSSES = ("MODEL.LOSS.CE_STRIDE", "2", "MODEL.LOSS.LOVASZ_STRIDE", "4")
AUTOCAST, FP32 = (("SOLVER.AMP.ENABLED", switch) for switch in ("True", "False"))
# The CPU's fast layers keep casts of weights from step to step, which a warm process has already.
PLAIN = ("MODEL.SAM.FAST", "False")


def case(size: tuple[int, int], batch: int, *opts: str) -> dict[str, Any]:
    return {"size": size, "batch": batch, "opts": opts}


def predicted(one: dict[str, Any]) -> int:
    """The traced peak of a case, with the kernels of this CPU."""
    cfg = load_config([], [*measured_step.planned_opts(), *one["opts"]])
    dtype = torch.bfloat16 if cfg.SOLVER.AMP.ENABLED else None
    planned = build_planned_model(cfg)
    traced = trace_step(planned, one["size"], one["batch"], autocast_dtype=dtype, as_cuda=False)
    return traced.peak_bytes


def errors(cases: Sequence[dict[str, Any]]) -> list[float]:
    """Relative errors of the predictions; the real steps run in a process of their own."""
    if not os.access(measured_step.PEAK_RESET, os.W_OK):
        pytest.skip(f"the peak of a process cannot be measured: no {measured_step.PEAK_RESET}")
    finished = subprocess.run(
        [sys.executable, str(Path(measured_step.__file__)), json.dumps(cases)],
        env={**os.environ, **measured_step.ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    measured = json.loads(finished.stdout.splitlines()[-1])
    found = []
    for one, real in zip(cases, measured, strict=True):
        plan = predicted(one)
        found.append(plan / real - 1)
        name = " ".join([f"{one['size']} x {one['batch']}", *one["opts"]])
        print(
            f"{name}: measured {real / 1e6:.1f} MB, planned {plan / 1e6:.1f} MB, {found[-1]:+.1%}"
        )
    return found


def test_the_planned_peak_is_a_real_steps() -> None:
    cases = [
        case((384, 288), 1, *FP32),
        case((512, 384), 1, *THIN_LOSSES, *AUTOCAST),
        case((512, 384), 1, *THIN_LOSSES, *CHECKPOINTED, *AUTOCAST),
        case((512, 384), 1, *THIN_LOSSES, *MLPS, *AUTOCAST),
        case((288, 288), 2, *THIN_LOSSES, *CHECKPOINTED, *FP32),
    ]
    assert max(map(abs, errors(cases))) < ALLOWED_ERROR


@pytest.mark.slow
def test_the_planned_peak_is_a_real_steps_in_a_wider_table() -> None:
    large = ("MODEL.SAM.VARIANT", "vit_b", "MODEL.CLIP.VARIANT", "RN101", *PLAIN)
    switches = list(itertools.product(((), MLPS, CHECKPOINTED), (FP32, AUTOCAST)))
    cases = [
        case(size, batch, *ckpt, *amp)
        for size in ((256, 192), (384, 384))
        for batch in (1, 2)
        for ckpt, amp in switches
    ]
    cases += [case((512, 384), 1, *THIN_LOSSES, *ckpt, *amp) for ckpt, amp in switches]
    cases += [case((256, 256), 1, *large, *ckpt, *amp) for ckpt, amp in switches]
    assert max(map(abs, errors(cases))) < ALLOWED_ERROR


def test_a_trace_follows_tensors_until_they_are_freed() -> None:
    given = torch.ones(1000)
    with OperationTrace([given]) as trace:
        a = given + 1
        assert trace.live_bytes == 4000
        b = a.view(10, 100)  # the same storage
        c = b.half()
        assert trace.live_bytes == 6000
        del a
        assert trace.live_bytes == 6000
        del b
        assert trace.live_bytes == 2000
        given.mul_(2)
        assert trace.live_bytes == 2000
        d = torch.cat([c.flatten(), c.flatten()])
    assert (trace.live_bytes, trace.peak_bytes) == (6000, 6000)
    del c, d
    assert (trace.live_bytes, trace.peak_bytes) == (0, 6000)


def test_the_planned_model_is_the_one_that_training_builds(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    for opts in ([], ["MODEL.SEM_SEG_HEAD.CLASSIFIER", "text"], ["MODEL.SRM.ENABLED", "False"]):
        cfg = tiny_cfg(opts)
        planned, real = build_planned_model(cfg), build_model(cfg).train()

        def described(model: torch.nn.Module) -> dict[str, Any]:
            tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            found = {n: (tuple(t.shape), t.dtype, t.requires_grad) for n, t in tensors.items()}
            return {**found, **{n: m.training for n, m in model.named_modules()}}

        assert described(planned.model) == described(real)
        trained = [p for p in real.parameters() if p.requires_grad]
        assert planned.trained == sum(p.numel() for p in trained)
        assert planned.trained_bytes == 4 * planned.trained
        buffers = sum(b.numel() * b.element_size() for b in real.buffers())
        assert planned.weight_bytes == 4 * (planned.trained + planned.frozen) + buffers


def test_weight_files_are_not_wanted(tiny_cfg: Callable[..., CfgNode]) -> None:
    cfg = tiny_cfg(["MODEL.SAM.WEIGHTS", "/no/file", "MODEL.CLIP.WEIGHTS", "/no/file"])
    assert build_planned_model(cfg).trained > 0
    assert cfg.MODEL.SAM.WEIGHTS == "/no/file"


def test_another_backbone_is_refused(tiny_cfg: Callable[..., CfgNode]) -> None:
    cfg = tiny_cfg(
        [
            *("MODEL.BACKBONE.NAME", "ClipBackbone", "MODEL.SRM.ENABLED", "False"),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2', 'res3', 'res4', 'res5']"),
        ]
    )
    with pytest.raises(InputError, match="ClipBackbone"):
        build_planned_model(cfg)


def test_checkpointing_keeps_less(tiny_cfg: Callable[..., CfgNode]) -> None:
    ways = ([], MLPS, CHECKPOINTED)
    plain, mlps, layers = (build_planned_model(tiny_cfg(opts)) for opts in ways)

    def traced(planned: PlannedModel) -> StepTrace:
        return trace_step(planned, (128, 96), 2, autocast_dtype=None)

    # FTM keeps little of its own: what goes is the layers' activations.
    kept = [traced(planned).kept_bytes for planned in (plain, mlps, layers)]
    assert kept[2] < 0.7 * kept[0]
    # CUDA's attention keeps its bias too, which is the most of so small a model's layers.
    assert kept[0] - kept[1] > 0.2 * (kept[0] - kept[2])
    assert traced(layers).peak_bytes < traced(mlps).peak_bytes < traced(plain).peak_bytes


def test_casts_that_recomputed_mlps_keep_count(
    tiny_cfg: Callable[..., CfgNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = build_planned_model(tiny_cfg(MLPS))
    layers = build_planned_model(tiny_cfg(CHECKPOINTED))

    def peak() -> int:
        return trace_step(planned, (64, 48), 1, autocast_dtype=torch.bfloat16).peak_bytes

    # Eight MLPs of 96 and 384 channels, in two bytes each.
    casts = 2 * 8 * (2 * 96 * 384 + 96 + 384)
    assert step_module._casts_of_recomputed_mlps(planned.model, torch.bfloat16) == casts
    assert step_module._casts_of_recomputed_mlps(planned.model, None) == 0
    assert step_module._casts_of_recomputed_mlps(layers.model, torch.bfloat16) == 0
    counted = peak()
    monkeypatch.setattr(step_module, "_casts_of_recomputed_mlps", lambda *_: 0)
    assert counted - peak() == casts


def test_parts_of_a_batch_add_to_gradients_that_do_not_count(
    tiny_cfg: Callable[..., CfgNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = build_planned_model(tiny_cfg())
    trained = [p for p in planned.model.parameters() if p.requires_grad]
    seen = []
    backward = step_module._backward

    def watched(loss: torch.Tensor) -> None:
        seen.append(sum(p.grad is not None for p in planned.model.parameters()))
        backward(loss)

    monkeypatch.setattr(step_module, "_backward", watched)
    first = trace_step(planned, (32, 32), 1, autocast_dtype=None)
    later = trace_step(planned, (32, 32), 1, autocast_dtype=None, gradients_exist=True)
    assert seen == [0, len(trained)]
    assert later.kept_bytes == first.kept_bytes
    assert all(p.grad is None for p in trained)


def test_attention_on_cuda_keeps_the_bias_and_no_scores(tiny_cfg: Callable[..., CfgNode]) -> None:
    planned = build_planned_model(tiny_cfg())
    attention = planned.model.backbone.encoder.blocks[1].attn  # of the whole grid
    heads, tokens, dim = attention.num_heads, 16 * 15, 96
    with planned.mode, CudaChoices(), OperationTrace(attention.parameters()) as trace:
        x = torch.zeros(1, 16, 15, dim, requires_grad=True)
        output = attention(x)
        kept = trace.live_bytes
    square = 4 * heads * tokens**2
    qkv, rest = 4 * 3 * tokens * dim, 4 * 3 * tokens * dim  # input, attended, output
    # One square, the bias: scores would be another.
    assert square + qkv + rest <= kept < square + qkv + rest + 0.3 * square
    assert output.shape == (1, 16, 15, dim)


def test_choices_of_cuda_under_autocast() -> None:
    x = torch.randn(2, 3, 5, 8)
    bias = torch.randn(2, 3, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), CudaChoices():
        half = x.bfloat16()
        assert F.layer_norm(half, (8,)).dtype == torch.float32
        assert F.group_norm(half, 3).dtype == torch.float32
        assert half.softmax(dim=-1).dtype == torch.float32
        assert F.gelu(half).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.layer_norm(half, (8,)).dtype == torch.bfloat16  # what the CPU itself does
    with FakeTensorMode(allow_non_fake_inputs=True), CudaChoices():
        with OperationTrace() as trace:
            attended = F.scaled_dot_product_attention(x, x, x, attn_mask=bias)
            # Output, one number for each of 32 rows, and the bias with rows of 16 instead of 5;
            # two numbers of the dropout that is not used.
            sizes = 2 * 3 * 5 * 8 + 2 * 3 * 32 + 2 * 3 * 5 * 16
            assert trace.live_bytes == 4 * sizes + 2 * 8
        assert attended.shape == x.shape


def test_static_shapes_are_the_costliest_labels() -> None:
    labels = torch.tensor([1, 1, 255])
    with StaticShapes(4):
        assert labels.unique().tolist() == [0, 1, 2, 3]
        assert labels[labels != 255].tolist() == [1, 1, 255]
        assert torch.zeros(2, 3)[:, labels != 255].shape == (2, 3)
        assert bool((labels == 7).any())
        assert labels[1:].tolist() == [1, 255]


def test_held_memory() -> None:
    alone = held_memory(1000, 100, gpus=1, accumulate_steps=1, has_ema=False)
    assert (alone.weights, alone.optimizer) == (1000, 200)
    assert alone.total == 1200 + alone.overhead
    full = held_memory(1000, 100, gpus=2, accumulate_steps=3, has_ema=True)
    assert (full.average, full.buckets, full.gradients) == (100, 100, 100)
    assert full.total == 1500 + full.overhead


def test_peak_model() -> None:
    traces = [StepTrace(2, 0, 0, 0, 130), StepTrace(8, 0, 0, 0, 430)]
    model = PeakModel.through(traces)
    assert (model.constant, model.per_image) == (30, 50)
    held = HeldMemory(1000, 0, 0, 0, 0, overhead=0)
    assert model.peak(held, 4) == 1000 + FRAGMENTATION * 230
    for images in (1, 4, 100):
        assert model.largest_batch(held, model.peak(held, images) + 1) == images
        assert model.largest_batch(held, model.peak(held, images) - 1) == images - 1
    assert model.largest_batch(held, 500) == 0
