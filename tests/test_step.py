"""One step: the update, its parts, clipping, autocast, and what it leaves out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import randomise, relative_error
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from step_fakes import Batch, ValueModel, item, run_steps, step_trainer
from torch import nn

from schnet.engine.ema import ModelEma
from schnet.errors import InputError


def test_updates_and_reports(tmp_path: Path) -> None:
    model = ValueModel()
    latest = run_steps(step_trainer(model, [[item(3.0, 4.0)]], tmp_path))
    assert model.weight.tolist() == [-3.0, -4.0]
    assert latest["grad_norm"] == pytest.approx(5.0)
    assert {"total_loss", "loss_a", "loss_b", "data_time"} <= set(latest)
    assert not {"amp_scale", "bad_steps"} & set(latest)


def test_clips_the_norm_of_the_whole_gradient(tmp_path: Path) -> None:
    model = ValueModel()
    latest = run_steps(step_trainer(model, [[item(3.0, 4.0)]], tmp_path, clip_norm=1.0))
    assert model.weight.tolist() == pytest.approx([-0.6, -0.8], rel=1e-4)
    assert latest["grad_norm"] == pytest.approx(5.0)  # before clipping


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_autocasts_the_forward_pass(tmp_path: Path, dtype: torch.dtype | None) -> None:
    model = ValueModel()
    run_steps(step_trainer(model, [[item(1.0, 1.0)]], tmp_path, dtype=dtype))
    assert model.seen_dtypes == [dtype or torch.float32]
    assert model.weight.dtype is torch.float32


def test_old_gradients_do_not_count(tmp_path: Path) -> None:
    model = ValueModel()
    run_steps(step_trainer(model, [[item(1.0, 0.0)]] * 2, tmp_path), 2)
    assert model.weight.tolist() == [-2.0, 0.0]


def test_parts_of_a_step_add_up_and_are_clipped_together(tmp_path: Path) -> None:
    parts = [[item(4.0, 0.0)], [item(0.0, 8.0)], [item(2.0, 4.0)], [item(6.0, 4.0)]]
    model = ValueModel()
    trainer = step_trainer(model, parts, tmp_path, accumulate_steps=2, clip_norm=2.0)
    latest = run_steps(trainer, 2)
    assert model.calls == 4
    assert latest["grad_norm"] == pytest.approx(math.hypot(4, 4))
    first, second = math.hypot(2, 4), math.hypot(4, 4)
    wanted = [-2 * (2 / first + 4 / second), -2 * (4 / first + 4 / second)]
    assert model.weight.tolist() == pytest.approx(wanted, rel=1e-4)


def test_metrics_of_a_step_are_the_mean_of_its_parts(tmp_path: Path) -> None:
    model = ValueModel()
    with torch.no_grad():
        model.weight.fill_(1.0)
    parts = [[item(1.0, 10.0)], [item(3.0, 30.0)]]
    latest = run_steps(step_trainer(model, parts, tmp_path, accumulate_steps=2))
    assert (latest["loss_a"], latest["loss_b"]) == pytest.approx((2.0, 20.0))
    assert latest["total_loss"] == pytest.approx(22.0)


def _photos(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator),
            "sem_seg": torch.randint(0, 4, (32, 32), generator=generator),
        }
        for _ in range(count)
    ]


def _gradients(cfg: CfgNode, folder: Path, parts: list[Batch]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(cfg)
    for part in (model.backbone.ftm, model.sem_seg_head):
        randomise(part)  # at its start most of the strengthening has no gradient
    run_steps(step_trainer(model, parts, folder, accumulate_steps=len(parts)))
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("parts", [2, 4])
def test_schnet_has_the_gradients_of_the_whole_batch_in_parts(
    tiny_cfg: Callable[..., CfgNode], tmp_path: Path, parts: int
) -> None:
    photos = _photos(4)
    photos[1]["sem_seg"] = torch.full((32, 32), 255)  # uneven shares of labels
    whole = _gradients(tiny_cfg(), tmp_path, [photos])
    size = len(photos) // parts
    shares = [photos[start : start + size] for start in range(0, len(photos), size)]
    for name, gradient in _gradients(tiny_cfg(), tmp_path, shares).items():
        assert gradient.any(), name
        assert relative_error(gradient, whole[name]) < 1e-4, name


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path, bad: float) -> None:
    model = ValueModel()
    trainer = step_trainer(model, [[item(bad, 1.0)]], tmp_path, clip_norm=1.0)
    with pytest.raises(InputError, match=r"loss_a nan.*images photos/a.jpg"):
        run_steps(trainer)
    assert model.weight.tolist() == [0.0, 0.0]


class _SteepModel(ValueModel):
    """A finite loss, the square root at 0, with an infinite slope where its value is 0."""

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        value = batch[0]["value"][0]
        return {"loss_a": (self.weight.sum() + value).abs().sqrt()}


def test_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    model = _SteepModel()
    trainer = step_trainer(model, [[item(0.0, 1.0)]], tmp_path, clip_norm=1.0)
    with pytest.raises(InputError, match="gradient's norm is"):
        run_steps(trainer)
    assert model.weight.tolist() == [0.0, 0.0]


def _adamw(model: ValueModel) -> torch.optim.Optimizer:
    return torch.optim.AdamW([model.weight], lr=0.1, weight_decay=0.5, fused=True)


@pytest.mark.parametrize("model_class", [ValueModel, _SteepModel])
def test_skipped_step_leaves_weights_optimizer_and_average_but_not_the_schedule(
    tmp_path: Path, model_class: type[ValueModel]
) -> None:
    model = model_class()
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer, ema = _adamw(model), ModelEma(model, 0.5)
    bad = [item(math.nan, 0.0)]
    trainer = step_trainer(
        model,
        [[item(1.0, 2.0)], bad, [item(1.0, 2.0)]],
        tmp_path,
        optimizer=optimizer,
        allowed=1,
        ema=ema,
        clip_norm=1.0,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
    run_steps(trainer)
    schedule.step()
    if model_class is _SteepModel:
        bad[0]["value"] = torch.tensor([-float(model.weight.detach().sum()), 0.0])
    before = model.weight.detach().clone()
    state = {k: v.clone() for k, v in optimizer.state[model.weight].items()}
    average = ema.state_dict()["model"]["weight"].clone()
    latest = run_steps(trainer)
    schedule.step()
    assert latest == {"bad_steps": 1}
    assert torch.equal(model.weight, before)
    assert all(torch.equal(v, state[k]) for k, v in optimizer.state[model.weight].items())
    assert torch.equal(ema.state_dict()["model"]["weight"], average)
    assert (ema.updates, optimizer.param_groups[0]["lr"]) == (1, 0.1 * 0.25)
    run_steps(trainer)
    assert not torch.equal(model.weight, before)
    assert ema.updates == 2


@pytest.mark.parametrize("values", [(1.0, math.nan), (math.nan, 1.0)])
def test_one_bad_part_leaves_out_the_whole_step(
    tmp_path: Path, values: tuple[float, float]
) -> None:
    model = ValueModel()
    parts = [[item(value, 1.0)] for value in (*values, 2.0, 2.0)]
    trainer = step_trainer(model, parts, tmp_path, accumulate_steps=2, allowed=1)
    run_steps(trainer)
    assert model.weight.tolist() == [0.0, 0.0]
    run_steps(trainer)
    assert model.weight.tolist() == [-2.0, -1.0]


def test_schedule_does_not_warn_of_a_first_step_that_was_skipped(tmp_path: Path) -> None:
    model = ValueModel()
    optimizer = _adamw(model)
    trainer = step_trainer(model, [[item(math.nan, 1.0)]], tmp_path, optimizer=optimizer, allowed=1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
    run_steps(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()


def test_resumed_step_goes_on_counting_bad_steps(tmp_path: Path) -> None:
    bad = [[item(math.nan, 1.0)]] * 2
    first = step_trainer(ValueModel(), bad, tmp_path, allowed=1)
    run_steps(first)
    torch.save(first.state_dict(), tmp_path / "step.pth")
    second = step_trainer(ValueModel(), bad, tmp_path, allowed=1)
    second.load_state_dict(torch.load(tmp_path / "step.pth", weights_only=True))
    with pytest.raises(InputError, match="SOLVER.MAX_BAD_STEPS 1"):
        run_steps(second)


def test_model_in_training_mode_and_no_gradient_of_the_frozen(tmp_path: Path) -> None:
    model: nn.Module = ValueModel().eval()
    trainer = step_trainer(model, [[item(1.0, 1.0)]], tmp_path)
    run_steps(trainer)
    assert model.training
    assert all(p.grad is None for p in model.linear.parameters())
