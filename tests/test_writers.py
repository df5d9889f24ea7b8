"""What a run writes: the line of progress, the table, one value once, and in which order."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter, TensorboardXWriter
from evaluated_run import HookRun, ScriptedEvaluation, of_metric
from tiny_lip import OPTS

from schnet.config import load_config
from schnet.engine.csv_writer import CsvWriter
from schnet.engine.writers import ProgressPrinter, WriterHook, build_writers
from schnet.errors import InputError

SECONDS = 0.5


def _step(storage: EventStorage, iteration: int) -> None:
    """The scalars of a step; its time is known from the third on, as Detectron2 has it."""
    storage.put_scalars(total_loss=2.0 + iteration, loss_ce=1.0, data_time=0.25)
    storage.put_scalar("lr", 1e-3, smoothing_hint=False)
    if iteration >= 2:
        storage.put_scalar("time", SECONDS)


class _Evaluation(ScriptedEvaluation):
    """Puts its results among the scalars too."""

    def evaluate(self) -> None:
        super().evaluate()
        for name, value in self.results["sem_seg"].items():
            self.trainer.storage.put_scalar(f"sem_seg/{name}", value, smoothing_hint=False)


def _train(
    writers: list[EventWriter],
    stop: int,
    *,
    start: int = 0,
    max_iter: int = 100,
    period: int = 20,
    eval_period: int = 1000,
    fail_at: int = -1,
    pending: bool = False,
) -> HookRun:
    evaluation = _Evaluation(of_metric(*range(1, 50)), eval_period)
    evaluation.pending = pending
    hooks = [evaluation, WriterHook(evaluation, writers, period)]
    return HookRun(hooks, start=start, max_iter=max_iter, step=_step).train(stop, fail_at)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that gives the lines of progress so far."""
    caplog.set_level(logging.INFO, logger="schnet.engine.writers")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "schnet.engine.writers"]


def test_line_has_time_left_losses_and_rates(
    lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = _train([ProgressPrinter(1000, 16)], 20, max_iter=1000)
    (line,) = lines()
    # 980 steps of half a second; the median of the last 20 losses.
    assert line == (
        "eta: 0:08:10  iter: 19  total_loss: 11.5  loss_ce: 1  time: 0.5000  images/s: 32  "
        "data_time: 0.2500  lr: 0.001"
    )
    assert run.storage.latest()["images_per_second"] == (32.0, 19)
    assert run.storage.latest()["eta_seconds"] == (490.0, 19)


def test_time_left_after_a_resume_counts_what_is_left(lines: Callable[[], list[str]]) -> None:
    _train([ProgressPrinter(1000, 16)], 900, start=880, max_iter=1000)
    (line,) = lines()
    assert line.startswith("eta: 0:00:50  iter: 899")


@pytest.mark.parametrize("stop", [0, 1, 2, 5])
def test_run_shorter_than_a_period_is_told_once_at_its_end(
    lines: Callable[[], list[str]], stop: int
) -> None:
    _train([ProgressPrinter(stop, 16)], stop, max_iter=stop)
    told = lines()
    assert len(told) == (stop > 0)
    if told:
        assert f"iter: {stop - 1}  total_loss" in told[0]
        assert ("eta: 0:00:00" in told[0]) == (stop > 2)


def test_interrupted_run_tells_its_last_step_once(
    lines: Callable[[], list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "metrics.json"
    _train([ProgressPrinter(100, 16), JSONWriter(str(path))], 50, fail_at=23)
    assert [re.findall(r"iter: (\d+)", line) for line in lines()] == [["19"], ["22"]]
    assert [entry["iteration"] for entry in _entries(path)] == [19, 22]


def test_losses_of_an_evaluation_are_not_in_the_line(lines: Callable[[], list[str]]) -> None:
    def step(storage: EventStorage, iteration: int) -> None:
        _step(storage, iteration)
        storage.put_scalar("val/loss", 7.0, smoothing_hint=False)

    evaluation = ScriptedEvaluation([])
    evaluation.after_step = lambda: None  # type: ignore[method-assign]
    hooks = [evaluation, WriterHook(evaluation, [ProgressPrinter(1, 1)], 1)]
    HookRun(hooks, max_iter=1, step=step).train(1)
    assert "val/loss" not in lines()[0]


def _entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_evaluation_is_written_and_each_value_once(tmp_path: Path) -> None:
    """More often than the writing: of two values in one period, the first was lost."""
    json_path, csv_path = tmp_path / "metrics.json", tmp_path / "metrics.csv"
    _train([JSONWriter(str(json_path)), CsvWriter(csv_path)], 20, eval_period=8, max_iter=20)
    found = {e["iteration"]: e.get("sem_seg/mIoU") for e in _entries(json_path)}
    assert found == {7: 1.0, 15: 2.0, 19: None}
    rows = {row["iteration"]: row["sem_seg/mIoU"] for row in _table(csv_path)}
    assert rows == {"7": "1.0", "15": "2.0", "19": ""}


def test_table_has_the_numbers_of_the_json_lines(tmp_path: Path) -> None:
    json_path, csv_path = tmp_path / "metrics.json", tmp_path / "metrics.csv"
    writers = [ProgressPrinter(60, 4), CsvWriter(csv_path), JSONWriter(str(json_path))]
    _train(writers, 60, eval_period=40, max_iter=60)
    table = [{k: float(v) for k, v in row.items() if v} for row in _table(csv_path)]
    assert table == _entries(json_path)
    columns = list(_table(csv_path)[0])
    assert columns[0] == "iteration" and columns[-1] == "sem_seg/mIoU"


def test_steps_columns_come_before_those_of_an_evaluation_of_the_first_row(tmp_path: Path) -> None:
    _train([CsvWriter(tmp_path / "metrics.csv")], 8, eval_period=8)
    columns = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    steps = ["data_time", "loss_ce", "lr", "time", "total_loss"]
    assert columns == ["iteration", *steps, "sem_seg/mIoU"]


def test_new_column_comes_last_and_leaves_the_rows_before_it_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    _train([CsvWriter(path)], 60, eval_period=40, max_iter=60)
    header, *rows = path.read_text().splitlines()
    assert header.endswith(",sem_seg/mIoU")
    assert [row.split(",")[0] for row in rows] == ["19", "39", "59"]
    assert [row.split(",")[-1] for row in rows] == ["", "1.0", ""]
    assert len({row.count(",") for row in (header, *rows)}) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv"]


@pytest.mark.parametrize("tail", ["", "59,0.1,0.", "59"])
def test_resumed_run_replaces_the_rows_that_it_computes_again(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "metrics.csv"
    _train([CsvWriter(path)], 60, eval_period=40)
    before = path.read_text()
    with open(path, "a") as file:
        file.write(tail)  # what a killed run leaves of a line
    _train([CsvWriter(path)], 80, start=40, eval_period=1000)
    rows = _table(path)
    assert [row["iteration"] for row in rows] == ["19", "39", "59", "79"]
    assert rows[1]["sem_seg/mIoU"] == "1.0"
    assert path.read_text().startswith("\n".join(before.splitlines()[:3]))


@pytest.mark.parametrize("last", [0, 39])
def test_row_of_an_evaluation_that_is_made_up_for_is_replaced(tmp_path: Path, last: int) -> None:
    """A run that is preempted in an evaluation has written its step's row when it ends."""
    path = tmp_path / "metrics.csv"
    _train([CsvWriter(path)], last + 1, max_iter=last + 1)
    before = [row["iteration"] for row in _table(path)]
    assert before[-1] == str(last)
    _train([CsvWriter(path)], 60, start=last + 1, pending=True)
    expected = {0: ["19", "39", "59"], 39: ["19", "59"]}[last]
    assert [row["iteration"] for row in _table(path)] == expected
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_run_that_is_over_keeps_its_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    _train([CsvWriter(path)], 40, max_iter=40)
    before = path.read_text()
    _train([CsvWriter(path)], 40, start=40, max_iter=40)
    assert path.read_text() == before


def test_table_of_an_earlier_run_is_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    contents = []
    for stop in (20, 40, 60):
        _train([CsvWriter(path)], stop)
        contents.append(path.read_text())
    assert (tmp_path / "metrics_earlier_1.csv").read_text() == contents[0]
    assert (tmp_path / "metrics_earlier_2.csv").read_text() == contents[1]
    assert [row["iteration"] for row in _table(path)] == ["19", "39", "59"]


@pytest.mark.parametrize(
    "content",
    [
        b"name,price\napple,3\n",
        b"iteration,price\n1,3\n",
        b"iteration;total_loss\n19;0,5\n",
        b"iteration,total_loss\n19,0.5\nmine\n",
        b"total_loss,iteration\n0.5,19\n",
        b"no newline",
        b"\xff\xfe\x00",
    ],
)
def test_foreign_table_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.csv is not the table of a training run"):
        CsvWriter(path)
    assert path.read_bytes() == content


def test_table_of_a_run_whose_first_steps_were_skipped_is_one(tmp_path: Path) -> None:
    """It could not be resumed."""
    path = tmp_path / "metrics.csv"
    with EventStorage() as storage:
        storage.put_scalars(bad_steps=1, lr=0.5, smoothing_hint=False)
        CsvWriter(path).write()
    _train([CsvWriter(path)], 20, start=1)
    assert [row["iteration"] for row in _table(path)] == ["0", "19"]


def test_value_that_is_no_number_is_an_empty_cell(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = CsvWriter(path)
    with EventStorage() as storage:
        storage.put_scalars(total_loss=float("nan"), lr=1.0, smoothing_hint=False)
        writer.write()
    assert _table(path) == [{"iteration": "0", "lr": "1.0", "total_loss": ""}]


def test_writers_of_a_run_in_their_order(tmp_path: Path) -> None:
    writers = build_writers(load_config([], [*OPTS, "OUTPUT_DIR", str(tmp_path / "out")]), 4)
    # The first adds scalars that the others write; the last takes the images away.
    kinds = [ProgressPrinter, CsvWriter, JSONWriter, TensorboardXWriter]
    assert [type(writer) for writer in writers] == kinds
    for writer in writers:
        writer.close()
