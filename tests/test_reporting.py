"""What the report reads and draws: histories over resumes, axes, curves, markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_runs import evaluation_record, write_config, write_log, write_metrics

from schnet.errors import InputError
from schnet.reporting.axes import exponent_of, iteration_axis, tick_text, value_axis
from schnet.reporting.curves import Chart, Line, draw_chart
from schnet.reporting.headline import duration, short_count
from schnet.reporting.history import History, read_history, smoothed, thinned
from schnet.reporting.markup import Markup, tag
from schnet.reporting.run_files import read_run


def _step(iteration: int, loss: float = 1.0) -> dict[str, float]:
    return {"iteration": iteration, "total_loss": loss, "time": 0.5}


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = tag("b", "<i>&", title='"x"')
    assert inner == '<b title="&quot;x&quot;">&lt;i&gt;&amp;</b>'
    assert tag("p", inner, None, 3, class_="a", aria_hidden="true", hidden=True, id=None) == (
        f'<p class="a" aria-hidden="true" hidden>{inner}3</p>'
    )
    assert tag("img", src="x", alt="") == '<img src="x" alt="">'
    assert isinstance(inner, Markup)


def test_later_lines_count_and_undone_steps_go(tmp_path: Path) -> None:
    # Killed at 139, resumed at 100, killed again at 119.
    lines = [*(_step(i, 1.0) for i in range(19, 140, 20)), _step(119, 7.0)]
    write_metrics(tmp_path, lines)
    history = read_history(tmp_path)
    assert [i for i, _ in history.series("total_loss")] == [19, 39, 59, 79, 99, 119]
    assert history.series("total_loss")[-1] == (119, 7.0)
    assert history.last_iteration == 119


def test_an_evaluation_written_after_a_later_step_is_no_resume(tmp_path: Path) -> None:
    write_metrics(tmp_path, [_step(19), _step(39), evaluation_record(29, 50.0), _step(59)])
    history = read_history(tmp_path)
    assert [i for i, _ in history.series("total_loss")] == [19, 39, 59]
    assert history.series("sem_seg/mIoU") == [(29, 50.0)]
    assert [record["iteration"] for record in history.records] == [19, 29, 39, 59]


def test_lines_of_one_iteration_are_one_record(tmp_path: Path) -> None:
    write_metrics(tmp_path, [_step(19), evaluation_record(19, 50.0), evaluation_record(19, 60.0)])
    (record,) = read_history(tmp_path).records
    assert record["total_loss"] == 1.0
    assert record["sem_seg/mIoU"] == 60.0


def test_broken_lines_are_counted_and_nan_is_no_point(tmp_path: Path) -> None:
    lines = [json.dumps(_step(19)), '{"iteration": 39, "total_l', "[1]", '{"total_loss": 1}']
    lines += ['{"iteration": 59, "total_loss": NaN, "lr": 0.1}', ""]
    (tmp_path / "metrics.json").write_text("\n".join(lines), encoding="utf-8")
    history = read_history(tmp_path)
    assert history.unreadable == 3
    assert history.series("total_loss") == [(19, 1.0)]
    assert history.series("lr") == [(59, 0.1)]


def test_no_metrics_file_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(tmp_path)
    assert history.records == ()
    assert history.last_iteration == -1
    assert history.best("mIoU", "auto") is None
    assert history.seconds() == 0


def test_best_follows_mode_and_first_data_set() -> None:
    records = [
        {"iteration": i, "b/sem_seg/mIoU": 90.0, "a/sem_seg/mIoU": a, "a/val/loss": loss}
        for i, a, loss in ((9, 10.0, 3.0), (19, 30.0, 1.0), (29, 30.0, 2.0))
    ]
    history = History(records)
    best = history.best("mIoU", "auto", ["a", "b"])
    assert best is not None
    assert (best.name, best.iteration, best.value) == ("a/sem_seg/mIoU", 19, 30.0)
    lowest = history.best("val/loss", "auto", ["a", "b"])
    assert lowest is not None and (lowest.iteration, lowest.value) == (19, 1.0)
    highest = history.best("val/loss", "max", ["a", "b"])
    assert highest is not None and highest.iteration == 9
    worst = history.best("mIoU", "min", ["a", "b"])
    assert worst is not None and worst.iteration == 9


def test_time_is_that_of_all_steps() -> None:
    history = History([{"iteration": 19, "time": 0.5}, {"iteration": 39, "time": 1.0}])
    assert history.seconds() == 20 * 0.5 + 20 * 1.0


def test_smoothing_is_centred_and_whole_at_the_ends() -> None:
    points = [(0, 0.0), (1, 3.0), (2, 6.0), (3, 0.0)]
    assert smoothed(points, 3) == [(0, 1.5), (1, 3.0), (2, 3.0), (3, 3.0)]
    assert smoothed(points, 1) == points


def test_thinning_keeps_peaks() -> None:
    points = [(i, 0.0) for i in range(1000)]
    points[567] = (567, 9.0)
    points[12] = (12, -9.0)
    thin = thinned(points, 50)
    assert len(thin) <= 50
    assert {(567, 9.0), (12, -9.0)} <= set(thin)
    assert thin == sorted(thin)


@pytest.mark.parametrize(
    "values", [[0.0], [5.0], [-3.0, -3.0], [0.2, 2.7], [1e-9, 2e-9], [-1, 1e6], [97.0, 98.0]]
)
def test_axes_hold_their_values(values: list[float]) -> None:
    axis = value_axis(values)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(0 <= axis.place(value) <= 1 for value in values)
    if min(values) >= 0:
        assert axis.low >= 0


def test_far_apart_values_are_drawn_by_their_logarithm() -> None:
    axis = value_axis([0.01, 0.1, 10.0], allow_log=True)
    assert axis.logarithmic
    assert axis.place(0.1) - axis.place(0.01) == pytest.approx(axis.place(10) - axis.place(1))
    assert not value_axis([0.01, 10.0]).logarithmic
    assert not value_axis([0.0, 10.0], allow_log=True).logarithmic


def test_ticks_are_short() -> None:
    axis = value_axis([0.0, 2e-4])
    assert [tick_text(tick, exponent_of(axis)) for tick in axis.ticks] == [
        *("0", "0.5", "1", "1.5", "2")
    ]
    assert iteration_axis(1999).ticks[-1] == 2000
    assert iteration_axis(0).ticks == [0, 1]
    assert (duration(59), duration(3725), duration(200000)) == ("59 s", "1 h 2 min", "2 d 7 h")
    assert (short_count(12_345_678), short_count(12)) == ("12.3 M", "12")


def test_charts_are_told_in_words_and_marked_by_shape() -> None:
    lines = [
        Line("<train>", [(0, 2.0), (10, 1.0)], "main"),
        Line("validation", [(10, 1.5)], "second"),
    ]
    chart = draw_chart(Chart("Loss", lines, 19, resumes=[10], best=((10, 1.5), "best")))
    assert 'role="img"' in chart
    assert "&lt;train&gt; from 2 at 0 to 1 at 10" in chart
    assert "<train>" not in chart
    assert "<circle" in chart and "<rect" in chart
    assert "resumed at iteration 10" in chart


def test_resumes_environment_and_early_end_come_from_the_log(tmp_path: Path) -> None:
    write_config(tmp_path)
    write_log(tmp_path, 0, 700, 700, 1400)
    run = read_run(tmp_path)
    assert run.resumes == [700, 1400]
    assert dict(run.environment)["PyTorch"] == "2.14.1 @/venv/torch"
    assert [name for name, _ in run.environment] == ["Python", "PyTorch", "detectron2"]
    assert run.stop_reason == ""
    with open(tmp_path / "log.txt", "a", encoding="utf-8") as file:
        file.write("[x] INFO: training ends before its last iteration: mIoU no better\n")
    assert read_run(tmp_path).stop_reason == "mIoU no better"


def test_other_folders_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither metrics.json nor config.yaml"):
        read_run(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(InputError, match=r"config.yaml cannot be read"):
        read_run(tmp_path)
    write_config(tmp_path)
    folder = tmp_path / "inference" / "dolls_val"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"evaluation.json is not as an evaluation writes it"):
        read_run(tmp_path)
