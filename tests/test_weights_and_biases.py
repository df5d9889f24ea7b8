"""The writer for Weights & Biases, on a stand-in of its package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from tiny_lip import OPTS, make_lip

from schnet.config import load_config
from schnet.engine.weights_and_biases import WandbWriter, build_wandb_writer
from schnet.engine.writers import build_writers
from schnet.errors import InputError
from schnet.logs import stop_logging
from schnet.setup import Resume, setup_training


class _Run:
    """Records what is logged."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.steps: dict[str, str | None] = {}
        self.logged: list[dict[str, Any]] = []
        self.finished = False

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.steps[name] = step_metric

    def log(self, data: dict[str, Any]) -> None:
        self.logged.append(data)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[_Run]:
    """Puts a package `wandb` in place; gives the runs that were opened."""
    opened: list[_Run] = []

    def init(**options: Any) -> _Run:
        opened.append(_Run(**options))
        return opened[-1]

    module = SimpleNamespace(init=init, Image=lambda pixels: ("image", pixels.shape))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return opened


def _cfg(tmp_path: Path, *opts: str) -> CfgNode:
    own = ["OUTPUT_DIR", str(tmp_path / "out"), "WANDB.ENABLED", "True"]
    return load_config([], [*OPTS, *own, *opts])


def test_scalars_and_images_are_logged_once_over_their_iteration() -> None:
    run = _Run()
    writer = WandbWriter(run, lambda pixels: pixels.shape)
    with EventStorage(5) as storage:
        storage.put_scalar("loss", 1.0)
        storage.put_image("samples/a", np.zeros((3, 4, 6), np.uint8))
        writer.write()
        storage.clear_images()  # TensorBoard's writer
        storage.iter = 6
        storage.put_scalar("lr", 2.0)
        writer.write()
        writer.write()
    assert run.steps == {"iteration": None, "*": "iteration"}
    assert run.logged == [
        {"iteration": 5, "loss": 1.0},
        {"iteration": 5, "samples/a": (4, 6, 3)},
        {"iteration": 6, "lr": 2.0},
    ]
    writer.close()
    assert run.finished


def test_run_is_opened_by_the_config(tmp_path: Path, runs: list[_Run]) -> None:
    build_wandb_writer(_cfg(tmp_path, "WANDB.PROJECT", "parsing", "WANDB.NAME", "first"))
    options = runs[0].options
    assert (options["project"], options["name"]) == ("parsing", "first")
    assert options["dir"] == str(tmp_path / "out")
    assert options["config"]["SOLVER"]["MAX_ITER"] == 4
    build_wandb_writer(_cfg(tmp_path))
    assert runs[1].options["name"] == str(tmp_path / "out")


def test_continued_run_is_the_same_and_a_new_one_is_another(
    tmp_path: Path, runs: list[_Run]
) -> None:
    build_wandb_writer(_cfg(tmp_path))
    build_wandb_writer(_cfg(tmp_path))  # no checkpoint: a new run in the old folder
    (tmp_path / "out" / "model_init.pth").touch()
    build_wandb_writer(_cfg(tmp_path))
    build_wandb_writer(_cfg(tmp_path, "WANDB.PROJECT", "another"))
    first, second, third, fourth = [run.options["id"] for run in runs]
    assert second == third and len({first, second, fourth}) == 3
    assert runs[2].options["resume"] == "allow"
    note = json.loads((tmp_path / "out" / "wandb_run.json").read_text())
    assert note == {"id": fourth, "project": "another"}


def test_damaged_note_is_refused(tmp_path: Path, runs: list[_Run]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model_init.pth").touch()
    for content in ("", "[]", "{}"):
        (tmp_path / "out" / "wandb_run.json").write_text(content)
        with pytest.raises(InputError, match=r"wandb_run\.json is not the note"):
            build_wandb_writer(_cfg(tmp_path))
    assert runs == []


def test_run_that_does_not_open_is_one_sentence(
    tmp_path: Path, runs: list[_Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise RuntimeError("no API key\nconfigured")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(InputError, match=r"no API key configured\): run `wandb login`, set .*MODE"):
        build_wandb_writer(_cfg(tmp_path))
    assert not (tmp_path / "out" / "wandb_run.json").exists()


def test_writer_comes_before_tensorboard_and_only_where_it_is_wanted(
    tmp_path: Path, runs: list[_Run]
) -> None:
    wanted = build_writers(_cfg(tmp_path), 4)
    assert [type(writer).__name__ for writer in wanted][-2:] == [
        "WandbWriter",
        "TensorboardXWriter",
    ]
    others = build_writers(_cfg(tmp_path, "WANDB.ENABLED", "False"), 4)
    assert len(runs) == 1 and len(others) == len(wanted) - 1
    for writer in (*wanted, *others):
        writer.close()


@pytest.mark.parametrize("module", [None, ModuleType("wandb")])
def test_missing_package_is_refused_at_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType | None
) -> None:
    """Absent; or a folder of that name, as its runs leave, which Python imports as a package."""
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    make_lip(tmp_path / "data")
    opts = [*OPTS, "OUTPUT_DIR", str(tmp_path / "out")]
    with pytest.raises(InputError, match="wandb is not installed: run `pip install wandb`"):
        setup_training([], [*opts, "WANDB.ENABLED", "True"], Resume.NEVER)
    assert not (tmp_path / "out").exists()
    setup_training([], opts, Resume.NEVER)
    stop_logging()
