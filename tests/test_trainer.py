"""The run: what a resumed one repeats exactly, what it returns, and how it fails."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from pixel_parser import pixel_parser_registered, train_to_file
from tiny_lip import OPTS, make_lip

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.launch import TORCHRUN_VARIABLES, ProcessLayout, launch
from schnet.engine.summary import parameter_table
from schnet.engine.trainer import ParsingTrainer
from schnet.errors import InputError


@pytest.fixture(autouse=True)
def _architecture() -> Iterator[None]:
    """Register the model for one test."""
    with pixel_parser_registered():
        yield


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., CfgNode]:
    """A function of (folder name, overrides) that gives a run's config."""
    make_lip(tmp_path / "data")
    register_datasets(str(tmp_path / "data"))

    def read(folder: str = "out", *opts: str) -> CfgNode:
        own = [*("MODEL.META_ARCHITECTURE", "PixelParser", "OUTPUT_DIR", str(tmp_path / folder))]
        return load_config([], [*OPTS, *own, *("SOLVER.BASE_LR", "0.05"), *opts])

    return read


def _train(cfg: CfgNode, *, resume: bool = False) -> tuple[ParsingTrainer, dict[str, Any]]:
    torch.manual_seed(0)
    trainer = ParsingTrainer(cfg)
    trainer.resume_or_load(resume)
    return trainer, trainer.train()


def _interrupt(cfg: CfgNode, at: int, error: Exception) -> ParsingTrainer:
    """Train until an iteration raises."""
    torch.manual_seed(0)
    trainer = ParsingTrainer(cfg)

    def fail(iteration: int) -> None:
        if iteration == at:
            raise error

    trainer.model.fail = fail
    with pytest.raises(type(error)):
        trainer.train()
    return trainer


def _metrics(cfg: CfgNode) -> list[dict[str, float]]:
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_resumed_run_equals_an_uninterrupted_one(config: Callable[..., CfgNode]) -> None:
    whole, results = _train(config("whole"))
    _interrupt(config("parts"), 3, RuntimeError("power cut"))
    resumed, resumed_results = _train(config("parts"), resume=True)
    assert resumed.start_iter == 2  # iteration 2 was done, but not saved: it is repeated
    assert resumed.model.seen == whole.model.seen[4:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]
    # Some metrics of so few pixels are not defined, and NaN does not equal itself.
    assert resumed_results["sem_seg"] == pytest.approx(
        results["sem_seg"], rel=0, abs=0, nan_ok=True
    )


def test_trains_what_requires_gradients_and_nothing_else(config: Callable[..., CfgNode]) -> None:
    torch.manual_seed(0)
    trainer = ParsingTrainer(config())
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {n for n, v in trainer.model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"head.weight", "head.bias"}


def test_first_checkpoint_lets_a_run_resume_that_failed_at_once(
    config: Callable[..., CfgNode],
) -> None:
    _interrupt(config(), 0, RuntimeError("at the first step"))
    resumed, _ = _train(config(), resume=True)
    assert resumed.start_iter == 0
    whole, _ = _train(config("whole"))
    assert torch.equal(resumed.model.head.weight, whole.model.head.weight)


def test_metrics_and_results_are_written(config: Callable[..., CfgNode]) -> None:
    cfg = config()
    _, results = _train(cfg)
    out = Path(cfg.OUTPUT_DIR)
    # A metric that is no longer defined stays on the line of its own iteration.
    last = next(line for line in _metrics(cfg) if line["iteration"] == 3)
    assert {"total_loss", "grad_norm", "lr", "data_time", "sem_seg/mIoU"} <= set(last)
    assert last["sem_seg/mIoU"] == results["sem_seg"]["mIoU"]
    saved = json.loads((out / "inference" / "lip_val" / "evaluation.json").read_text())
    assert saved["sem_seg"]["mIoU"] == pytest.approx(results["sem_seg"]["mIoU"])
    assert list(out.glob("events.out.tfevents.*"))
    names = {path.stem for path in out.glob("*.pth")}
    assert names == {"model_init", "model_0000001", "model_best", "model_final"}


def test_finished_run_resumes_to_its_results_without_another_step(
    config: Callable[..., CfgNode],
) -> None:
    _, results = _train(config())
    resumed, again = _train(config(), resume=True)
    assert again["sem_seg"] == pytest.approx(results["sem_seg"], rel=0, abs=0, nan_ok=True)
    assert resumed.model.seen == []


def test_longer_schedule_goes_on_after_the_end(config: Callable[..., CfgNode]) -> None:
    _train(config())
    resumed, _ = _train(config("out", "SOLVER.MAX_ITER", "6"), resume=True)
    assert (resumed.start_iter, resumed.iter) == (4, 6)
    assert len(resumed.model.seen) == 4


def test_training_starts_from_given_weights(config: Callable[..., CfgNode], tmp_path: Path) -> None:
    first, _ = _train(config("first"))
    weights = str(tmp_path / "first" / "model_best.pth")
    trainer = ParsingTrainer(config("second", "MODEL.WEIGHTS", weights))
    trainer.resume_or_load(resume=False)
    saved = torch.load(weights, weights_only=True)["model"]
    assert torch.equal(trainer.model.head.weight, saved["head.weight"])
    assert trainer.start_iter == 0


def test_resuming_an_empty_folder_is_refused(config: Callable[..., CfgNode]) -> None:
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        ParsingTrainer(config()).resume_or_load(resume=True)


def test_defect_is_logged_with_its_traceback_and_bad_input_is_not(
    config: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="schnet"):
        _interrupt(config("a"), 1, InputError("photos/a.jpg is no image: replace it"))
        assert not [record for record in caplog.records if record.exc_info]
        _interrupt(config("b"), 1, RuntimeError("a defect"))
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "training stopped at iteration 1"


def test_full_disk_is_not_logged_as_a_defect(
    config: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="schnet"):
        _interrupt(config("a"), 1, OSError(errno.ENOSPC, "No space left on device"))
        assert not [record for record in caplog.records if record.exc_info]
        _interrupt(config("b"), 1, FileNotFoundError(errno.ENOENT, "a defect"))
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_checkpoint_without_its_iteration_is_refused(config: Callable[..., CfgNode]) -> None:
    cfg = config()
    _train(cfg)
    path = Path(cfg.OUTPUT_DIR) / "model_final.pth"
    content = torch.load(path, weights_only=True)
    del content["iteration"]
    torch.save(content, path)
    with pytest.raises(InputError, match="model_final.pth lacks iteration"):
        ParsingTrainer(cfg).resume_or_load(resume=True)


def test_bad_batch_size_is_refused_before_the_first_checkpoint(
    config: Callable[..., CfgNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config("out", "SOLVER.IMS_PER_BATCH", "3")
    trainer = ParsingTrainer(cfg)
    monkeypatch.setattr("schnet.data.loader.comm.get_world_size", lambda: 2)
    with pytest.raises(InputError, match="IMS_PER_BATCH is 3"):
        trainer.train()
    assert not list(Path(cfg.OUTPUT_DIR).glob("*.pth"))


def test_parameters_are_logged_per_module_once(
    config: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="schnet"):
        trainer = ParsingTrainer(config())
    assert caplog.text.count("trained") == 1
    table = {row.split()[0]: row.split()[-2:] for row in parameter_table(trainer.model).split("\n")}
    assert table["frozen"] == ["0", "32"]
    assert table["head"] == ["180", "0"]
    assert table["total"] == ["180", "32"]


def test_two_processes_train_like_one(
    config: Callable[..., CfgNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the batch on each of two processes; three test images over two."""
    for name in TORCHRUN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    whole, results = _train(config("whole"))
    layout = ProcessLayout(2, 1, 0, "gloo", "auto")
    launch(train_to_file, layout, (config("halves").dump(), str(tmp_path)))
    halves = torch.load(tmp_path / "halves" / "model_final.pth", weights_only=True)["model"]
    for name, value in whole.model.state_dict().items():
        assert torch.allclose(value, halves[name], rtol=1e-3, atol=1e-5), name
    (found,) = [json.loads(path.read_text()) for path in tmp_path.glob("rank*.json")]
    assert found["sem_seg"]["mIoU"] == pytest.approx(results["sem_seg"]["mIoU"], abs=0.1)
