"""The average of the weights: its formula, what it holds, putting it in and back, a run with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import randomise
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pixel_parser import pixel_parser_registered, train_until
from step_fakes import ValueModel, item, run_steps, step_trainer
from tiny_lip import OPTS, make_lip
from torch import nn

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.ema import ModelEma
from schnet.engine.trainer import ParsingTrainer
from schnet.errors import InputError


def _averages(ema: ModelEma) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in ema.state_dict()["model"].items()}


def test_equals_the_formula_with_its_warm_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = ModelEma(model, 0.3)
    average, seen = torch.zeros(()), []
    for update in range(8):
        with torch.no_grad():
            model.weight.fill_(float(update**2 + 1))
        kept = 0.0 if update == 0 else min(0.3, (1 + update) / (10 + update))
        average = kept * average + (1 - kept) * (update**2 + 1)
        ema.update()
        seen.append(float(ema.state_dict()["model"]["weight"]))
        assert seen[-1] == pytest.approx(float(average), rel=1e-6)
    assert seen[0] == 1.0
    assert ema.state_dict()["updates"] == 8 and ema.state_dict()["decay"] == 0.3


def test_before_the_first_update_it_is_the_weights_that_the_model_has_by_then() -> None:
    model = nn.Linear(2, 2)
    ema = ModelEma(model, 0.9)
    randomise(model)  # weights loaded after the construction
    assert torch.equal(_averages(ema)["weight"], model.weight)
    with ema.applied():
        model.weight.data += 1
    ema.update()
    assert torch.equal(_averages(ema)["weight"], model.weight)


def test_holds_what_trains_and_copies_no_frozen_base(tiny_cfg: Callable[..., CfgNode]) -> None:
    model = build_model(tiny_cfg())
    ema = ModelEma(model, 0.9)
    ema.update()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert _averages(ema).keys() == trained
    storages = {value.data_ptr() for value in ema.state_dict()["model"].values()}
    assert not storages & {p.data_ptr() for p in model.parameters()}
    free = build_model(tiny_cfg(["MODEL.SAM.FREEZE", "False"]))
    assert "backbone.encoder.pos_embed" in ModelEma(free, 0.9).state_dict()["model"]


def test_floating_buffers_of_trained_modules_are_averaged_too() -> None:
    model = nn.BatchNorm1d(2)
    model.register_buffer("not_saved", torch.zeros(2), persistent=False)
    ema = ModelEma(model, 0.9)
    assert _averages(ema).keys() == {"weight", "bias", "running_mean", "running_var"}
    ema.update()
    model.running_mean.fill_(4.0)
    ema.update()
    assert _averages(ema)["running_mean"].tolist() == pytest.approx([4 * (1 - 2 / 11)] * 2)
    with ema.applied():
        assert torch.equal(model.running_mean, _averages(ema)["running_mean"])
    assert model.running_mean.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_kept_in_fp32(dtype: torch.dtype) -> None:
    model = nn.Linear(1, 1, bias=False).to(dtype)
    ema = ModelEma(model, 0.999)
    nn.init.ones_(model.weight)
    ema.update()
    nn.init.constant_(model.weight, 1.0078125)  # bfloat16's next number
    ema.update()
    assert _averages(ema)["weight"].dtype is torch.float32
    assert 1.0 < float(_averages(ema)["weight"]) < 1.0078125


def test_weights_come_back_to_the_bit_also_after_an_error() -> None:
    model = nn.Linear(3, 3)
    ema = ModelEma(model, 0.9)
    for _ in range(3):
        randomise(model)
        ema.update()
    own, averages = model.weight.detach().clone(), _averages(ema)
    parameter = model.weight
    with pytest.raises(ZeroDivisionError), ema.applied():
        assert torch.equal(model.weight, averages["weight"])
        assert not torch.equal(model.weight, own)
        raise ZeroDivisionError
    assert model.weight is parameter and torch.equal(model.weight, own)
    assert all(torch.equal(value, averages[name]) for name, value in _averages(ema).items())


def test_state_goes_through_a_file_and_on(tmp_path: Path) -> None:
    weights = [torch.randn(2, 2) for _ in range(5)]

    def update(ema: ModelEma, model: nn.Linear, weight: torch.Tensor) -> None:
        with torch.no_grad():
            model.weight.copy_(weight)
        ema.update()

    whole_model, first_model, second_model = (nn.Linear(2, 2, bias=False) for _ in range(3))
    whole, first = ModelEma(whole_model, 0.4), ModelEma(first_model, 0.4)
    for weight in weights:
        update(whole, whole_model, weight)
    for weight in weights[:3]:
        update(first, first_model, weight)
    torch.save(first.state_dict(), tmp_path / "ema.pth")
    second = ModelEma(second_model, 0.4)
    second.load_state_dict(torch.load(tmp_path / "ema.pth", weights_only=True))
    for weight in weights[3:]:
        update(second, second_model, weight)
    assert torch.equal(_averages(second)["weight"], _averages(whole)["weight"])
    second.load_state_dict(whole.state_dict())
    loaded = _averages(second)["weight"]
    update(whole, whole_model, weights[0])  # what was loaded is a copy
    assert torch.equal(_averages(second)["weight"], loaded)


@pytest.mark.parametrize("other", [nn.Linear(2, 2, bias=False), nn.Linear(3, 2)])
def test_average_of_another_model_is_refused(other: nn.Module) -> None:
    ema = ModelEma(nn.Linear(2, 2), 0.4)
    with pytest.raises(ValueError, match="differ in 1 tensors, first (bias|weight)"):
        ema.load_state_dict(ModelEma(other, 0.4).state_dict())


def test_is_updated_after_each_step_and_not_after_parts(tmp_path: Path) -> None:
    model = ValueModel()
    ema = ModelEma(model, 0.0)
    parts = [[item(1.0, 1.0)]] * 4
    run_steps(step_trainer(model, parts, tmp_path, ema=ema, accumulate_steps=2), 2)
    assert ema.updates == 2
    assert torch.equal(_averages(ema)["weight"], model.weight)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Callable[..., CfgNode]]:
    """A function of (folder name, overrides) that gives a run's config."""
    make_lip(tmp_path / "data")
    register_datasets(str(tmp_path / "data"))

    def read(folder: str, *opts: str) -> CfgNode:
        own = ("MODEL.META_ARCHITECTURE", "PixelParser", "OUTPUT_DIR", str(tmp_path / folder))
        average = ("SOLVER.EMA.ENABLED", "True", "SOLVER.EMA.DECAY", "0.9")
        return load_config([], [*OPTS, *own, *average, "SOLVER.BASE_LR", "0.5", *opts])

    with pixel_parser_registered():
        yield read


def _train(cfg: CfgNode, *, resume: bool = False) -> ParsingTrainer:
    torch.manual_seed(0)
    trainer = ParsingTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def test_run_evaluates_and_keeps_the_average_and_trains_on(
    config: Callable[..., CfgNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []
    test = ParsingTrainer.test

    def watch(cfg: CfgNode, model: nn.Module) -> dict[str, object]:
        evaluated.append(model.head.weight.detach().clone())
        return test(cfg, model)

    monkeypatch.setattr(ParsingTrainer, "test", staticmethod(watch))
    averaged = _train(config("averaged"))
    with_average = [weight for weight in evaluated]
    evaluated.clear()
    plain = _train(config("plain", "SOLVER.EMA.ENABLED", "False"))
    assert torch.equal(averaged.model.head.weight, plain.model.head.weight)
    assert len(evaluated) == len(with_average) == 2
    assert not any(torch.equal(a, b) for a, b in zip(evaluated, with_average, strict=True))
    final = torch.load(tmp_path / "averaged" / "model_final.pth", weights_only=True)
    assert final["ema"]["updates"] == 4
    assert torch.equal(final["ema"]["model"]["head.weight"], with_average[-1])
    assert torch.equal(final["model"]["head.weight"], plain.model.head.weight)
    best = torch.load(tmp_path / "averaged" / "model_best.pth", weights_only=True)["model"]
    assert any(torch.equal(best["head.weight"], weight) for weight in with_average)
    without = torch.load(tmp_path / "plain" / "model_final.pth", weights_only=True)
    assert "ema" not in without


def test_resumed_run_has_the_average_of_an_uninterrupted_one(
    config: Callable[..., CfgNode], tmp_path: Path
) -> None:
    _train(config("whole"))
    train_until(config("parts"), 3, RuntimeError("power cut"))
    _train(config("parts"), resume=True)
    whole, parts = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["ema"]
        for name in ("whole", "parts")
    )
    assert whole["updates"] == parts["updates"] == 4
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name


def test_resuming_with_an_average_from_a_checkpoint_without_is_refused(
    config: Callable[..., CfgNode],
) -> None:
    _train(config("plain", "SOLVER.EMA.ENABLED", "False"))
    with pytest.raises(InputError, match=r"model_final.pth lacks ema.*MODEL.WEIGHTS of a new run"):
        ParsingTrainer(config("plain")).resume_or_load(resume=True)
