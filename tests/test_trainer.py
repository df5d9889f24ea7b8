"""The run: what a resumed one repeats exactly, what it returns, and how it fails."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from pixel_parser import pixel_parser_registered, train_to_file, train_until
from real_runs import CLOCKS, assert_same
from spawned import TWO, prepare_spawning
from tiny_lip import OPTS, make_lip

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.launch import launch
from schnet.engine.summary import parameter_table
from schnet.engine.trainer import ParsingTrainer
from schnet.errors import InputError, Preempted


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


def _metrics(cfg: CfgNode) -> list[dict[str, float]]:
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_resumed_run_equals_an_uninterrupted_one(config: Callable[..., CfgNode]) -> None:
    whole, results = _train(config("whole"))
    train_until(config("parts"), 3, RuntimeError("power cut"))
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


def _stop_at(trainer: ParsingTrainer, at: int, number: int, in_test: bool = False) -> None:
    """Send this process a signal in a training step, or in the evaluation after it."""

    def send(iteration: int) -> None:
        if iteration == at:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)

    if in_test:
        evaluate = trainer._evaluation._evaluate

        def stopped() -> dict[str, Any]:
            send(trainer.iter)
            return evaluate()

        trainer._evaluation._evaluate = stopped
    else:
        trainer.model.fail = send


def _assert_ends_as(whole: ParsingTrainer, resumed: ParsingTrainer) -> None:
    """Weights, images, best value and the metrics' lines, but for the times, are equal."""
    assert resumed.model.seen == whole.model.seen[-len(resumed.model.seen) :]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    states = [torch.load(Path(t.cfg.OUTPUT_DIR) / "model_final.pth") for t in (whole, resumed)]
    for state in states:
        state["trainer"].pop("metrics")
    assert_same(*states)
    lines = [{line.pop("iteration"): line for line in _metrics(t.cfg)} for t in (whole, resumed)]
    for iteration, expected in lines[0].items():
        for name in set(expected) - CLOCKS:
            assert lines[1][iteration][name] == expected[name], (iteration, name)


LONG = ("SOLVER.MAX_ITER", "8", "TEST.EVAL_PERIOD", "3", "SOLVER.CHECKPOINT_PERIOD", "4")


@pytest.mark.parametrize(
    ("number", "at", "in_test"),
    [
        (signal.SIGTERM, 0, False),  # the first step is finished and saved
        (signal.SIGUSR1, 4, False),
        (signal.SIGUSR1, 5, True),  # in an evaluation, saved before it
        (signal.SIGTERM, 2, False),  # in the step before an evaluation
    ],
)
def test_signal_ends_a_run_that_resumes_as_if_undisturbed(
    config: Callable[..., CfgNode],
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
    at: int,
    in_test: bool,
) -> None:
    whole, _ = _train(config("whole", *LONG))
    torch.manual_seed(0)
    trainer = ParsingTrainer(config("parts", *LONG))
    _stop_at(trainer, at, number, in_test)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    with caplog.at_level(logging.INFO, logger="schnet"), pytest.raises(Preempted):
        trainer.train()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == handlers
    out, newest = Path(trainer.cfg.OUTPUT_DIR), f"model_{at:07d}.pth"
    assert (out / "last_checkpoint").read_text() == newest
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert told == [
        f"{number.name} came in iteration {at}; {out / newest} is saved: continue with --resume"
    ]
    resumed, _ = _train(config("parts", *LONG), resume=True)
    assert resumed.start_iter == at + 1
    _assert_ends_as(whole, resumed)


def test_run_killed_in_an_evaluation_resumes_with_it(config: Callable[..., CfgNode]) -> None:
    whole, _ = _train(config("whole", *LONG))
    torch.manual_seed(0)
    trainer = ParsingTrainer(config("parts", *LONG))

    def kill() -> dict[str, Any]:
        raise RuntimeError("power cut")

    trainer._evaluation._evaluate = kill
    with pytest.raises(RuntimeError):
        trainer.train()
    resumed, _ = _train(config("parts", *LONG), resume=True)
    _assert_ends_as(whole, resumed)


def test_signal_in_the_last_step_lets_the_run_finish(config: Callable[..., CfgNode]) -> None:
    torch.manual_seed(0)
    trainer = ParsingTrainer(config("out", "TEST.EVAL_PERIOD", "0"))
    trainer._evaluation._evaluate = lambda: {}
    trainer._evaluation._interruptible = contextlib.nullcontext
    _stop_at(trainer, 3, signal.SIGTERM)
    trainer.train()
    assert (Path(trainer.cfg.OUTPUT_DIR) / "model_final.pth").exists()


def test_error_after_a_signal_is_told_as_preemption(
    config: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = ParsingTrainer(config())

    def lose_peer(iteration: int) -> None:
        if iteration == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("connection reset by peer")

    trainer.model.fail = lose_peer
    with pytest.raises(Preempted):
        trainer.train()
    assert "could not be finished (connection reset by peer)" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


def test_random_numbers_go_on_where_they_were(config: Callable[..., CfgNode]) -> None:
    def drawn(folder: str, seed: int, *, stop: int = -1, resume: bool = False) -> list[Any]:
        found: list[Any] = []

        def draw(iteration: int) -> None:
            found.append((float(torch.rand(())), random.random(), float(np.random.rand())))
            if len(found) == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        opts = ("SOLVER.MAX_ITER", "6", "DATALOADER.NUM_WORKERS", "1")
        trainer = ParsingTrainer(config(folder, *opts))
        seed_all_rng(seed)
        trainer.resume_or_load(resume)
        trainer.model.fail = draw
        with contextlib.suppress(Preempted):
            trainer.train()
        return found

    whole = drawn("whole", 5)
    assert len(set(whole)) == 6
    assert drawn("parts", 5, stop=3) + drawn("parts", 6, resume=True) == whole


def test_changed_batch_size_goes_on_with_the_next_images(config: Callable[..., CfgNode]) -> None:
    whole, _ = _train(config("whole", "SOLVER.MAX_ITER", "6"))
    _train(config("parts", "SOLVER.MAX_ITER", "3"))
    opts = ("SOLVER.MAX_ITER", "7", "SOLVER.IMS_PER_BATCH", "1")
    resumed, _ = _train(config("parts", *opts), resume=True)
    assert resumed.model.seen == whole.model.seen[6:10]
    opts = ("SOLVER.MAX_ITER", "8", "SOLVER.IMS_PER_BATCH", "2")
    again, _ = _train(config("parts", *opts), resume=True)
    assert again.model.seen == whole.model.seen[10:12]


def test_broken_images_are_counted_over_a_resumption(
    config: Callable[..., CfgNode], tmp_path: Path
) -> None:
    cfg = config("out", "DATALOADER.MAX_BAD_IMAGES", "1", "SOLVER.MAX_ITER", "5")
    images = sorted((tmp_path / "data").rglob("train_*.jpg"))
    images[0].write_bytes(b"no image")
    _train(cfg)
    saved = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)
    assert list(saved["trainer"]["broken"]) == [str(images[0])]
    images[1].write_bytes(b"no image")
    longer = config("out", "DATALOADER.MAX_BAD_IMAGES", "1", "SOLVER.MAX_ITER", "10")
    with pytest.raises(InputError, match="2 training images are broken"):
        _train(longer, resume=True)


def test_bad_steps_are_counted_over_a_resumption(config: Callable[..., CfgNode]) -> None:
    def train(resume: bool, *opts: str) -> None:
        trainer = ParsingTrainer(config("out", "SOLVER.MAX_BAD_STEPS", "1", *opts))
        trainer.resume_or_load(resume)
        losses = trainer.model.losses

        def first_is_bad(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            factor = math.nan if len(trainer.model.seen) == len(batch) else 1.0
            return {name: value * factor for name, value in losses(batch).items()}

        trainer.model.losses = first_is_bad
        trainer.train()

    train(False, "SOLVER.MAX_ITER", "2")
    with pytest.raises(InputError, match="more than SOLVER.MAX_BAD_STEPS 1"):
        train(True)


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
    train_until(config(), 0, RuntimeError("at the first step"))
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


@pytest.mark.parametrize(("name", "dtype"), [("float32", None), ("bfloat16", torch.bfloat16)])
def test_validation_loss_is_computed_in_the_type_of_the_evaluation(
    name: str,
    dtype: torch.dtype | None,
    config: Callable[..., CfgNode],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def note(cfg: CfgNode, model: Any, dtype: torch.dtype | None, results: Any) -> Any:
        seen.append(dtype)
        return results

    monkeypatch.setattr("schnet.engine.trainer.add_validation_losses", note)
    _train(config("out", "TEST.DTYPE", name, "SOLVER.MAX_ITER", "1"))
    assert seen == [dtype]


def test_finished_run_resumes_to_its_results_without_another_step(
    config: Callable[..., CfgNode],
) -> None:
    _, results = _train(config())
    resumed, again = _train(config(), resume=True)
    assert again["sem_seg"] == pytest.approx(results["sem_seg"], rel=0, abs=0, nan_ok=True)
    assert resumed.model.seen == []


def test_checkpoint_of_the_first_format_resumes_at_its_images(
    config: Callable[..., CfgNode],
) -> None:
    whole, _ = _train(config("whole"))
    _train(config("out", "SOLVER.MAX_ITER", "2"))
    path = Path(config().OUTPUT_DIR) / "model_final.pth"
    saved = torch.load(path, weights_only=True)
    hooks = {"EvaluationHook": {"results": saved["trainer"]["hooks"]["EvaluationHook"]["results"]}}
    kept = {name: saved[name] for name in ("model", "optimizer", "iteration")}
    scheduler = {**saved["scheduler"], "base_lrs": saved["scheduler"]["base_lrs"]}
    first = {"format": "schnet-checkpoint/1", "scheduler": scheduler, "trainer": {"hooks": hooks}}
    torch.save({**first, **kept}, path)
    resumed, _ = _train(config(), resume=True)
    assert resumed.start_iter == 2
    assert resumed.model.seen == whole.model.seen[len(whole.model.seen) - len(resumed.model.seen) :]


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
        train_until(config("a"), 1, InputError("photos/a.jpg is no image: replace it"))
        assert not [record for record in caplog.records if record.exc_info]
        train_until(config("b"), 1, RuntimeError("a defect"))
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "training stopped at iteration 1"


def test_full_disk_is_not_logged_as_a_defect(
    config: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="schnet"):
        train_until(config("a"), 1, OSError(errno.ENOSPC, "No space left on device"))
        assert not [record for record in caplog.records if record.exc_info]
        train_until(config("b"), 1, FileNotFoundError(errno.ENOENT, "a defect"))
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
    prepare_spawning(monkeypatch, tmp_path / "data")
    whole, results = _train(config("whole"))
    launch(train_to_file, TWO, (config("halves").dump(), str(tmp_path)))
    halves = torch.load(tmp_path / "halves" / "model_final.pth", weights_only=True)["model"]
    for name, value in whole.model.state_dict().items():
        assert torch.allclose(value, halves[name], rtol=1e-3, atol=1e-5), name
    (found,) = [json.loads(path.read_text()) for path in tmp_path.glob("rank*.json")]
    assert found["sem_seg"]["mIoU"] == pytest.approx(results["sem_seg"]["mIoU"], abs=0.1)
