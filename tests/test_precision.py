"""16-bit numbers: which type, float16's gradient scale, and what stays in fp32."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import randomise
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from step_fakes import Batch, ValueModel, item, run_steps, step_trainer
from torch.utils._python_dispatch import TorchDispatchMode

from schnet.config import load_config
from schnet.engine.ema import ModelEma
from schnet.engine.precision import autocast_dtype, build_precision
from schnet.errors import InputError

HALVES = (torch.bfloat16, torch.float16)
CPU = torch.device("cpu")


def test_auto_is_bfloat16_where_the_device_computes_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert autocast_dtype("auto", CPU) is torch.bfloat16
    for capability, wanted in (((7, 5), torch.float16), ((8, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d, found=capability: found)
        assert autocast_dtype("auto", torch.device("cuda")) is wanted
        assert autocast_dtype("bfloat16", torch.device("cuda")) is torch.bfloat16
    assert autocast_dtype("float16", CPU) is torch.float16


@pytest.mark.parametrize(
    ("opts", "dtype", "scale"),
    [
        ([], torch.bfloat16, 1.0),
        (["SOLVER.AMP.DTYPE", "float16"], torch.float16, 65536.0),
        (["SOLVER.AMP.ENABLED", "False", "SOLVER.AMP.DTYPE", "float16"], None, 1.0),
    ],
)
def test_config_says_which_type(opts: list[str], dtype: torch.dtype | None, scale: float) -> None:
    precision = build_precision(load_config([], opts), CPU)
    assert (precision.dtype, precision.scale) == (dtype, scale)


def _softmaxes_of(run: Callable[[], Any]) -> list[torch.dtype]:
    """Types of what every softmax computes in, wherever it is called from."""
    found: list[torch.dtype] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten._softmax.default, torch.ops.aten._log_softmax.default):
                found.append(out.dtype)
            return out

    with Watch():
        run()
    return found


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("classifier", ["linear", "text"])
def test_losses_and_explicit_softmaxes_are_fp32(
    tiny_cfg: Callable[..., CfgNode], dtype: torch.dtype, classifier: str
) -> None:
    cfg = tiny_cfg(["MODEL.SEM_SEG_HEAD.CLASSIFIER", classifier])
    model = build_model(cfg).train()
    losses: dict[str, torch.Tensor] = {}

    def run() -> None:
        with torch.autocast("cpu", dtype):
            losses.update(model(_photos()))

    seen = _softmaxes_of(run)
    # FTM's of eight layers, the similarity's, the cross-entropy's, the Lovasz term's of two
    # images; fused attention keeps its own to itself.
    assert len(seen) >= 8 + 1 + 1 + 2
    assert set(seen) == {torch.float32}
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert set(losses) == {"loss_ce", "loss_lovasz"}


def _photos() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8, generator=generator),
            "sem_seg": torch.randint(0, 4, (32, 48), generator=generator),
            "file_name": "a.jpg",
        }
        for _ in range(2)
    ]


@pytest.mark.parametrize("dtype", HALVES)
def test_schnet_trains_in_16_bits_as_in_32(
    tiny_cfg: Callable[..., CfgNode], tmp_path: Path, dtype: torch.dtype
) -> None:
    moved = {}
    for chosen in (None, dtype):
        torch.manual_seed(0)
        model = build_model(tiny_cfg())
        for part in (model.backbone.ftm, model.sem_seg_head):
            randomise(part, scale=0.05)
        trainer = step_trainer(model, [_photos()], tmp_path, dtype=chosen)
        trainer._precision.scaler = torch.amp.GradScaler(
            "cpu", init_scale=128.0, enabled=chosen is torch.float16
        )
        trained = [p for p in model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in trained]
        latest = run_steps(trainer)
        assert latest["grad_norm"] > 0
        assert {p.dtype for p in trained} == {p.grad.dtype for p in trained} == {torch.float32}
        moved[chosen] = torch.cat(
            [(p.detach() - b).flatten() for p, b in zip(trained, before, strict=True)]
        )
    assert torch.nn.functional.cosine_similarity(moved[None], moved[dtype], dim=0) > 0.99
    assert float(moved[dtype].norm() / moved[None].norm()) == pytest.approx(1.0, abs=0.05)


def test_float16_scale_does_not_change_the_clipped_step(tmp_path: Path) -> None:
    model = ValueModel()
    trainer = step_trainer(model, [[item(3.0, 4.0)]], tmp_path, clip_norm=1.0, dtype=torch.float16)
    latest = run_steps(trainer)
    assert model.weight.tolist() == pytest.approx([-0.6, -0.8], rel=1e-4)
    assert latest["grad_norm"] == pytest.approx(5.0)
    assert (latest["amp_scale"], latest["amp_overflows"]) == (65536.0, 0)


class _HalfModel(ValueModel):
    """The product in float16: its gradient overflows where the scaled loss's does."""

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        values = torch.stack([entry["value"] for entry in batch]).mean(0)
        return {"loss_a": (self.weight.half() * values.half()).float().sum()}


def test_overflow_lowers_the_scale_and_skips_without_being_bad(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = _HalfModel()
    ema = ModelEma(model, 0.9)
    optimizer = torch.optim.AdamW([model.weight], lr=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
    # Twice 65536 * 2 and 32768 * 2 overflow; 16384 * 2 does not.
    trainer = step_trainer(
        model, [[item(2.0, 1.0)]] * 3, tmp_path, dtype=torch.float16, ema=ema, optimizer=optimizer
    )
    with caplog.at_level(logging.INFO, logger="schnet"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for overflows, scale in ((1, 32768.0), (2, 16384.0)):
            latest = run_steps(trainer)
            schedule.step()
            assert (latest["amp_overflows"], latest["amp_scale"]) == (overflows, scale)
            assert "grad_norm" not in latest and "total_loss" in latest
    assert model.weight.tolist() == [0.0, 0.0] and not optimizer.state and ema.updates == 0
    assert caplog.text.count("gradients overflow float16") == 2
    assert not (tmp_path / "bad_batches").exists()
    assert run_steps(trainer)["grad_norm"] == pytest.approx(5**0.5)
    assert model.weight.tolist() != [0.0, 0.0] and ema.updates == 1


class _SteepModel(ValueModel):
    """A finite loss with an infinite slope, which no scale helps."""

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss_a": self.weight.abs().sum().sqrt()}


def test_gradient_that_no_scale_makes_finite_is_bad_in_the_end(tmp_path: Path) -> None:
    trainer = step_trainer(_SteepModel(), [[item(1.0, 1.0)]] * 40, tmp_path, dtype=torch.float16)
    with pytest.raises(InputError, match="gradient's norm is"):
        run_steps(trainer, 40)
    # From 65536 by halves to 1, which is no remedy any more.
    assert trainer.iter == 16


def test_scale_and_overflows_survive_a_resumption(tmp_path: Path) -> None:
    batches = [[item(2.0, 1.0)]] * 3
    first = step_trainer(_HalfModel(), batches, tmp_path, dtype=torch.float16)
    run_steps(first, 2)
    torch.save(first.state_dict(), tmp_path / "step.pth")
    state = torch.load(tmp_path / "step.pth", weights_only=True)
    second = step_trainer(_HalfModel(), batches, tmp_path, dtype=torch.float16)
    second.load_state_dict(state)
    latest = run_steps(second)
    assert (latest["amp_scale"], latest["amp_overflows"]) == (16384.0, 2)
    # In another type, or back: no scale to go on from.
    other = step_trainer(_HalfModel(), batches, tmp_path)
    other.load_state_dict(state)
    back = step_trainer(_HalfModel(), batches, tmp_path, dtype=torch.float16)
    back.load_state_dict(other.state_dict())
    assert run_steps(back)["amp_scale"] == 32768.0
