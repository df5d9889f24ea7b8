"""What the benchmarks of speed and memory share: turns, processes, options, files and pages."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmark_sides
import pytest
import torch
from conftest import REPOSITORY

from schnet.errors import InputError


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the benchmarks, as a script in `tools` imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tools"))
        yield lambda name: importlib.import_module(f"benchmarks.{name}")


def test_medians_and_ratios_are_of_the_rounds_after_the_warm_up(
    load: Callable[[str], ModuleType],
) -> None:
    runner, now, order = load("runner"), [0.0], []
    # The first turn of each side is slow, as a first one is; it must not count.
    lasts = {"slow": iter([90.0, 2.0, 8.0, 4.0]), "fast": iter([70.0, 1.0, 2.0, 4.0])}

    def side(name: str) -> Callable[[], None]:
        def work() -> None:
            order.append(name)
            now[0] += next(lasts[name])

        return work

    sides = {name: side(name) for name in lasts}
    samples = runner.interleave(sides, 3, clock=lambda: now[0])
    assert samples["slow"].seconds == (2.0, 8.0, 4.0) and samples["slow"].median == 4.0
    assert samples["fast"].spread == (1.0, 4.0)
    ratio = runner.compare(samples["slow"], samples["fast"])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 1.0, 4.0)
    # Neither always follows the other.
    assert order == ["slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]


def test_no_round_and_unequal_rounds_are_refused(load: Callable[[str], ModuleType]) -> None:
    runner = load("runner")
    with pytest.raises(ValueError, match="0 rounds"):
        runner.interleave({"a": lambda: None}, 0)
    with pytest.raises(ValueError):
        runner.compare(runner.Sample((1.0, 2.0)), runner.Sample((1.0,)))


def test_a_process_runs_sides_on_request(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, memory = load("processes"), load("memory")
    monkeypatch.setenv("PYTHONPATH", str(Path(benchmark_sides.__file__).parent), prepend=":")
    # An allocator that this process was started with is not the child's.
    monkeypatch.setenv("MALLOC_CHECK_", "0")
    with processes.SessionProcess(
        "benchmark_sides", {"told": 7}, threads=1, environment=memory.ENVIRONMENT
    ) as session:
        found = session.check("takes")
        assert found["threads"] == 1 and found["told"] == 7
        assert found["MALLOC_ARENA_MAX"] and not found["MALLOC_CHECK_"]
        assert session.check("prints") == {}
        assert session.time("prints")["seconds"] > 0
        taken = session.time("takes")
        assert taken["faults"] * 4096 >= 0.9 * (benchmark_sides.MEGABYTES << 20)
        measured = session.memory("takes")
        if memory.can_measure():
            assert 0.95 < measured["extra"] / (benchmark_sides.MEGABYTES << 20) < 1.2
        else:
            assert measured is None
        with pytest.raises(RuntimeError, match="this side fails"):
            session.time("fails")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds is 0: it must be at least 1"),
        (["--threads", "-2"], "--threads is -2"),
        (["--variant", "vit_x"], "--variant is 'vit_x': it must be one of vit_b, "),
        (["--sizes", "5l2"], "--sizes has '5l2'"),
        (["--sizes", "64x72"], "multiples of 16"),
        (["--sizes", "64@0"], "at least 1"),
        (["--quick", "--readme"], "--quick figures are not worth publishing"),
        (["--output", __file__], "is a file: name a folder"),
    ],
)
def test_bad_options_are_one_sentence(
    load: Callable[[str], ModuleType], options: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _settings(load, options)
    assert "\n" not in str(caught.value)


def _settings(load: Callable[[str], ModuleType], options: list[str]) -> Any:
    import argparse

    module, parser = load("options"), argparse.ArgumentParser()
    module.add_common_arguments(parser, variants=("vit_b",), sizes=("512", "512@4"))
    return module.read_settings(parser.parse_args(options))


def test_options_and_their_defaults(load: Callable[[str], ModuleType]) -> None:
    shape = load("options").Shape
    settings = _settings(load, [])
    assert settings.variants == ("vit_b",) and settings.rounds == 5
    assert settings.shapes == (shape(512, 512), shape(512, 512, 4))
    assert settings.threads == torch.get_num_threads()
    quick = _settings(load, ["--quick"])
    assert quick.variants == ("tiny",) and quick.shapes == (shape(64, 64),)
    assert quick.output != settings.output
    named = _settings(load, ["--sizes", "672x448@2", "--threads", "3", "--variant", "vit_l"])
    assert named.shapes == (shape(672, 448, 2),) and str(named.shapes[0]) == "672x448@2"
    assert (named.threads, named.variants) == (3, ("vit_l",))


PAGE = "# Title\nbefore <!-- bench:a -->\nold\n<!-- /bench:a --> after\n<!-- bench:b -->\n"


def test_only_what_is_between_the_markers_is_replaced(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    results, page = load("results"), tmp_path / "page.md"
    page.write_text(PAGE)
    results.write_page(page, "a", "| new |")
    changed = PAGE.replace("\nold\n", "\n\n| new |\n\n")
    assert page.read_text() == changed
    results.write_page(page, "a", "| new |")
    assert page.read_text() == changed
    # b has no end and c is not there.
    for name in ("b", "c"):
        with pytest.raises(InputError, match="has no place"):
            results.write_page(page, name, "x")
    assert page.read_text() == changed and list(tmp_path.iterdir()) == [page]


def test_figures_and_pages_are_written_and_rendered_again(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, page = load("results"), tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(results, "PAGES", (page, tmp_path / "none.md"))
    measured = []

    def measure(settings: Any) -> dict[str, Any]:
        measured.append(torch.get_num_threads())
        return {"value": 3}

    def render(figures: dict[str, Any]) -> str:
        return f"value {figures['value']}"

    output, threads = tmp_path / "out", torch.get_num_threads()
    options = ["--output", str(output), "--rounds", "7", "--threads", str(threads + 1)]
    text = results.finish("a", _settings(load, options), measure, render)
    assert measured == [threads + 1] and torch.get_num_threads() == threads
    assert text.endswith("\n\nvalue 3") and "7 interleaved rounds" in text
    content = json.loads((output / "a.json").read_text())
    assert content["benchmark"] == "a" and content["figures"] == {"value": 3}
    assert content["settings"]["shapes"] == ["512x512", "512x512@4"]
    assert content["machine"]["threads"] == threads + 1
    assert content["machine"]["torch"] == torch.__version__
    assert page.read_text() == PAGE

    again = _settings(load, ["--output", str(output), "--render", "--readme"])
    assert results.finish("a", again, measure, render) == text and len(measured) == 1
    assert page.read_text() == PAGE.replace("\nold\n", f"\n\n{text}\n\n")


def test_missing_markers_and_figures_are_named_before_anything_is_measured(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, page = load("results"), tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(results, "PAGES", (page,))

    def never(argument: Any) -> Any:
        raise AssertionError("called")

    output = ["--output", str(tmp_path)]
    with pytest.raises(InputError, match="<!-- bench:c -->"):
        results.finish("c", _settings(load, [*output, "--readme"]), never, never)
    with pytest.raises(InputError, match="run the benchmark without --render first"):
        results.finish("a", _settings(load, [*output, "--render"]), never, never)
    (tmp_path / "a.json").write_text('{"benchmark": "b"}')
    with pytest.raises(InputError, match="does not hold figures of the benchmark a"):
        results.finish("a", _settings(load, [*output, "--render"]), never, never)


def test_targets_are_met_or_not(load: Callable[[str], ModuleType]) -> None:
    target = load("results").target_text
    assert target(3.0, least=3.0) == "≥ 3: met" and target(2.99, least=3.0) == "≥ 3: **not met**"
    assert target(0.45, most=0.45) == "≤ 0.45: met"
    assert target(16.0, most=15, unit=" %") == "≤ 15 %: **not met**"
    assert target(None, least=3.0) == target(3.0) == "–"


def test_the_machine_is_described(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "0")
    machine = load("machine").describe_machine()
    text = load("machine").summarise_machine(machine)
    assert machine["threads"] == torch.get_num_threads()
    assert torch.__version__ in text and machine["processor"] in text
    assert machine["environment"]["MALLOC_TOP_PAD_"] == "0" and "MALLOC_TOP_PAD_=0" in text
