"""The report at the end of a training: when it is drawn, with whose weights, and if it fails."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from parsing_fakes import load_script
from pixel_parser import pixel_parser_registered
from tiny_lip import COUNTS, OPTS, make_lip
from torch import nn

from schnet.config import load_config
from schnet.data.catalog import load_registered, register_datasets
from schnet.engine.report_hook import ReportHook, best_weights, draw_report, parameter_rows
from schnet.engine.trainer import ParsingTrainer
from schnet.run_config import write_run_config


@pytest.fixture(autouse=True)
def _architecture() -> Iterator[None]:
    with pixel_parser_registered():
        yield


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CfgNode]:
    """A function of overrides that gives a run's config."""
    make_lip(tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    register_datasets()

    def read(*opts: str) -> CfgNode:
        own = [*("MODEL.META_ARCHITECTURE", "PixelParser", "OUTPUT_DIR", str(tmp_path / "out"))]
        return load_config([], [*OPTS, *own, *("SOLVER.BASE_LR", "0.05"), *opts])

    return read


def _trainer(cfg: CfgNode) -> ParsingTrainer:
    torch.manual_seed(0)
    trainer = ParsingTrainer(cfg)
    write_run_config(cfg, 0)
    return trainer


def _write_scores(cfg: CfgNode) -> None:
    """The scores of single images, for a run whose evaluation wrote none."""
    path = Path(cfg.OUTPUT_DIR) / "inference" / "lip_val" / "per_image.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image_id", "file_name", "mIoU", "pACC"))
        for number, entry in enumerate(load_registered(["lip_val"])):
            rows.writerow((entry["image_id"], entry["file_name"], 10.0 * number, 50.0))


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name == "schnet.engine.report_hook"]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def test_a_training_ends_with_its_report(
    config: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config()
    _trainer(cfg).train()
    page = (Path(cfg.OUTPUT_DIR) / "report.html").read_text(encoding="utf-8")
    assert not _warnings(caplog)
    assert "Finished." in page
    assert "Best mIoU" in page
    # All that the writers wrote is in it.
    assert "4<small>of 4, 2 images each" in page
    assert "180" in page and "frozen" in page


def test_a_run_that_an_error_ended_is_not_reported(config: Callable[..., CfgNode]) -> None:
    cfg = config()
    trainer = _trainer(cfg)

    def fail(iteration: int) -> None:
        raise RuntimeError("power cut")

    trainer.model.fail = fail
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    assert not (Path(cfg.OUTPUT_DIR) / "report.html").exists()


def test_a_failing_report_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def draw() -> Path:
        raise ZeroDivisionError("a defect")

    ReportHook(draw).after_train()
    (warning,) = _warnings(caplog)
    assert "the training is complete" in warning
    assert "ZeroDivisionError: a defect" in warning
    assert "tools/report.py" in warning
    assert caplog.records[-1].exc_info


def test_a_foreign_report_stays_and_the_training_counts(
    config: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config()
    trainer = _trainer(cfg)
    foreign = Path(cfg.OUTPUT_DIR) / "report.html"
    foreign.write_text("mine", encoding="utf-8")
    assert trainer.train()["sem_seg"]
    assert foreign.read_text(encoding="utf-8") == "mine"
    assert len(_warnings(caplog)) == 1


def test_the_best_weights_predict_and_the_models_own_come_back(
    config: Callable[..., CfgNode],
) -> None:
    cfg = config("TEST.SAMPLE_IMAGES", "1")
    trainer = _trainer(cfg)
    trainer.train()
    _write_scores(cfg)
    model = trainer.checkpointer.model
    path = best_weights(cfg)
    assert path is not None and path.name == "model_best.pth"
    best = {name: value.clone() for name, value in model.state_dict().items()}
    best["head.weight"] = torch.full_like(best["head.weight"], 0.5)
    torch.save({"format": "schnet-checkpoint/1", "model": best}, path)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()

    seen: list[bool] = []
    hook = model.register_forward_pre_hook(
        lambda module, inputs: seen.append(
            bool((module.head.weight == 0.5).all()) and not module.training
        )
    )
    report = draw_report(cfg, model, path)
    hook.remove()
    assert seen == [True, True]
    assert model.training
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    page = report.read_text(encoding="utf-8")
    assert "Predicted with model_best.pth" in page
    assert page.count("<img ") == 6

    draw_report(cfg, model, None)
    assert "Predicted with the last weights" in report.read_text(encoding="utf-8")


def test_a_failing_report_gives_the_weights_back_too(config: Callable[..., CfgNode]) -> None:
    cfg = config()
    trainer = _trainer(cfg)
    trainer.train()
    model = trainer.checkpointer.model
    path = best_weights(cfg)
    assert path is not None
    with torch.no_grad():
        model.head.weight.fill_(7)
    (Path(cfg.OUTPUT_DIR) / "report.html").write_text("mine", encoding="utf-8")
    with pytest.raises(Exception, match=r"is no report"):
        draw_report(cfg, model, path)
    assert bool((model.head.weight == 7).all())


def test_parameters_are_counted_by_part() -> None:
    model = nn.Module()
    model.mixed = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1).requires_grad_(False), nn.ReLU())
    model.frozen = nn.Linear(3, 1).requires_grad_(False)
    model.nothing = nn.ReLU()
    rows = [(row.name, row.trained, row.frozen) for row in parameter_rows(model)]
    assert rows == [("mixed.0", 4, 0), ("mixed.1", 0, 3), ("frozen", 0, 4)]


def test_the_tool_draws_a_killed_run(
    config: Callable[..., CfgNode], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = config("TEST.SAMPLE_IMAGES", "1")
    out = Path(cfg.OUTPUT_DIR)
    _trainer(cfg).train()
    (out / "model_final.pth").unlink()
    (out / "report.html").unlink()
    _write_scores(cfg)
    tool = load_script("tools/report.py")
    tool.main([str(out)])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Not finished: it has come to 4 of 4 iterations." in page
    captions = re.findall(r"mIoU [0-9.–]+( %)?</span> · (\w+)", page)
    assert [name for _, name in captions] == [f"val_{COUNTS['val'] - 1}", "val_0"]

    other = out / "other.pth"
    (out / "model_best.pth").rename(other)
    tool.main([str(out), "--weights", str(other)])
    assert "Predicted with other.pth" in (out / "report.html").read_text(encoding="utf-8")
