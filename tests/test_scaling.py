"""Another number of processes than the reference: what is scaled, and how a run resumes by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from pixel_parser import pixel_parser_registered, train_until
from tiny_lip import OPTS, make_lip

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.trainer import ParsingTrainer
from schnet.errors import InputError
from schnet.scaling import scale_to_processes

REFERENCE = [
    *("SOLVER.IMS_PER_BATCH", "16", "SOLVER.BASE_LR", "0.1", "SOLVER.REFERENCE_WORLD_SIZE", "8"),
    *("SOLVER.MAX_ITER", "5000", "SOLVER.WARMUP_ITERS", "500", "TEST.EVAL_PERIOD", "1000"),
    *("SOLVER.CHECKPOINT_PERIOD", "1000", "SOLVER.EMA.DECAY", "0.99"),
    *("SOLVER.ACCUMULATE_STEPS", "2", "SOLVER.MAX_BAD_STEPS", "3"),
]


@pytest.mark.parametrize(("processes", "scale"), [(16, 2.0), (2, 0.25), (24, 3.0)])
def test_scales_as_detectron2_does_and_the_average_along(processes: int, scale: float) -> None:
    cfg = load_config([], REFERENCE)
    before = cfg.dump()
    scaled = scale_to_processes(cfg, processes)
    assert cfg.dump() == before and scaled.is_frozen()
    assert scaled.SOLVER.IMS_PER_BATCH == 2 * processes
    assert scaled.SOLVER.BASE_LR == pytest.approx(0.1 * scale)
    assert scaled.SOLVER.MAX_ITER == round(5000 / scale)
    assert scaled.SOLVER.WARMUP_ITERS == round(500 / scale)
    assert scaled.TEST.EVAL_PERIOD == scaled.SOLVER.CHECKPOINT_PERIOD == round(1000 / scale)
    # As many images until the average has forgotten half.
    assert scaled.SOLVER.EMA.DECAY ** (1 / scale) == pytest.approx(0.99)
    assert (scaled.SOLVER.ACCUMULATE_STEPS, scaled.SOLVER.MAX_BAD_STEPS) == (2, 3)
    theirs = DefaultTrainer.auto_scale_workers(cfg, processes).clone()
    theirs.defrost()
    theirs.SOLVER.EMA.DECAY = scaled.SOLVER.EMA.DECAY
    assert theirs.dump() == scaled.dump()


@pytest.mark.parametrize(("reference", "processes"), [("0", 4), ("4", 4)])
def test_without_reference_or_at_it_nothing_changes(reference: str, processes: int) -> None:
    cfg = load_config([], [*REFERENCE, "SOLVER.REFERENCE_WORLD_SIZE", reference])
    assert scale_to_processes(cfg, processes) is cfg


def test_periods_do_not_become_zero_which_means_otherwise() -> None:
    every = ["SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "1", "SOLVER.MAX_ITER", "2"]
    scaled = scale_to_processes(load_config([], [*REFERENCE, *every]), 64)
    assert scaled.SOLVER.CHECKPOINT_PERIOD == scaled.TEST.EVAL_PERIOD == 1
    assert scaled.SOLVER.MAX_ITER == 1
    never = ["TEST.EVAL_PERIOD", "0"]
    assert scale_to_processes(load_config([], [*REFERENCE, *never]), 64).TEST.EVAL_PERIOD == 0


def test_batch_that_the_reference_does_not_divide_is_refused() -> None:
    cfg = load_config([], [*REFERENCE, "SOLVER.IMS_PER_BATCH", "12"])
    with pytest.raises(InputError, match="IMS_PER_BATCH is 12: .*REFERENCE_WORLD_SIZE, 8"):
        scale_to_processes(cfg, 4)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Callable[..., CfgNode]]:
    """A function of (folder name, overrides) that gives a run's config, for two processes."""
    make_lip(tmp_path / "data")
    register_datasets(str(tmp_path / "data"))

    def read(folder: str, *opts: str) -> CfgNode:
        own = ("MODEL.META_ARCHITECTURE", "PixelParser", "OUTPUT_DIR", str(tmp_path / folder))
        # For one process: batch 2, rate 0.5, 4 iterations, a checkpoint every second.
        doubled = (
            *("SOLVER.REFERENCE_WORLD_SIZE", "2", "SOLVER.IMS_PER_BATCH", "4"),
            *("SOLVER.MAX_ITER", "2", "SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "0"),
            *("SOLVER.WARMUP_ITERS", "0", "SOLVER.BASE_LR", "1.0"),
        )
        return load_config([], [*OPTS, *own, *doubled, *opts])

    with pixel_parser_registered():
        yield read


def test_run_trains_and_resumes_by_the_scaled_numbers(
    config: Callable[..., CfgNode], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = ParsingTrainer(config("whole"))
    whole.train()
    assert (whole.iter, len(whole.model.seen)) == (4, 8)
    first = torch.load(tmp_path / "whole" / "model_init.pth", weights_only=True)
    assert {group["lr"] for group in first["optimizer"]["param_groups"]} == {0.5}
    train_until(config("parts"), 3, RuntimeError("power cut"))
    resumed = ParsingTrainer(config("parts"))
    resumed.resume_or_load(resume=True)
    resumed.train()
    assert resumed.start_iter == 2
    assert resumed.model.seen == whole.model.seen[4:]
    assert torch.equal(resumed.model.head.weight, whole.model.head.weight)


@pytest.mark.parametrize("reference", [0, 2])
def test_scaled_run_is_not_resumed_with_other_processes(
    config: Callable[..., CfgNode], tmp_path: Path, reference: int
) -> None:
    ParsingTrainer(config("run")).train()
    path = tmp_path / "run" / "model_final.pth"
    content = torch.load(path, weights_only=True)
    content["rng"] *= 3  # as three processes write it
    torch.save(content, path)
    resumed = ParsingTrainer(config("run", "SOLVER.REFERENCE_WORLD_SIZE", str(reference)))
    if not reference:
        resumed.resume_or_load(resume=True)
        return
    with pytest.raises(InputError, match="saved by 3 processes, there are 1, and SOLVER.REFERENCE"):
        resumed.resume_or_load(resume=True)
