"""The benchmarks of speed and memory: that each runs, and that its figures are what it says."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, relative_error
from parsing_fakes import load_script
from torch.utils.flop_counter import FlopCounterMode

from schnet.errors import InputError

ROUNDS = 2


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the benchmarks, as a script in `tools` imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tools"))
        yield lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def run(
    load: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[dict[str, Any], str, list[dict[str, str]]]]:
    """Runs a benchmark in small: figures, what it printed, and its processes' environments.

    Its processes are this one: what starts them has a test of its own.
    """
    session, environments = load("session").Session, []

    class InThisProcess(session):
        def __init__(
            self,
            module: str,
            description: dict[str, Any],
            *,
            threads: int,
            environment: dict[str, str],
        ) -> None:
            environments.append(dict(environment))
            super().__init__(module, json.loads(json.dumps(description)))

        def __enter__(self) -> InThisProcess:
            return self

        def __exit__(self, *error: object) -> None:
            return None

    monkeypatch.setattr(load("processes"), "SessionProcess", InThisProcess)
    # In a process as large as the tests' it takes longer than what is measured.
    monkeypatch.setattr(load("memory").gc, "collect", lambda: 0)
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    tool = load_script("tools/benchmark.py")

    def runs(name: str, *options: str) -> tuple[dict[str, Any], str, list[dict[str, str]]]:
        tool.main([name, "--quick", "--output", str(tmp_path), *options])
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["benchmark"] == name and content["settings"]["rounds"] == ROUNDS
        return content["figures"], capsys.readouterr().out, environments

    return runs


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each markdown table, without its rule; all rows are as long as its header."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    result = [[table[0], *table[2:]] for table in found if table]
    assert all(len(row) == len(table[0]) for table in result for row in table)
    return result


def test_encoder(run: Callable[..., Any], load: Callable[[str], ModuleType]) -> None:
    figures, text, environments = run("encoder")
    (cell,) = figures["cells"]
    assert (cell["variant"], cell["shape"]) == ("tiny", "64x64")
    assert set(cell["seconds"]) == set(cell["memory"]) == {"reference", "fp32", "bf16"}
    assert all(len(seconds) == ROUNDS for seconds in cell["seconds"].values())
    assert cell["errors"]["fp32"] < 1e-5 < cell["errors"]["bf16"] < 2e-2
    to_fp64 = cell["errors_to_fp64"]
    assert 0 < to_fp64["reference"] < 1e-5 and 0 < to_fp64["fp32"] < 1e-5 < to_fp64["bf16"]
    assert cell["needed_flops"] > 0 and min(cell["product_rates"].values()) > 0
    assert environments == [load("memory").ENVIRONMENT] * 3
    times, results = tables(text)
    assert [row[2] for row in times[1:]] == [row[2] for row in results[1:]] == list(cell["seconds"])


def test_encoders_tables_hold_the_targets_against_what_was_measured(
    load: Callable[[str], ModuleType],
) -> None:
    cell = {
        "variant": "vit_b",
        "shape": "512x512",
        "seconds": {"reference": [3.0, 3.0], "fp32": [1.0, 1.0], "bf16": [1.0, 0.5]},
        "errors": {"fp32": 2e-5, "bf16": 5e-3},
        "errors_to_fp64": None,
        "needed_flops": 80,
        "product_rates": {"fp32": 100.0, "bf16": 200.0},
        "packed": True,
        "memory": {
            "reference": {"extra": 100_000_000, "kept": 1},
            "fp32": {"extra": 10_000_000, "kept": 2},
            "bf16": None,
        },
    }
    encoder = load("encoder")
    times, results = tables(encoder.render({"cells": [cell]}))
    fp32 = ["1.00 s (1.00…1.00)", "3.00 (3.00…3.00)", "≥ 3: met", "3.75", "80 %", "≥ 75 %: met"]
    assert times[2][3:] == fp32
    assert times[3][4:6] == ["4.00 (3.00…6.00)", "≥ 5: **not met**"] and times[3][6] == "7.50"
    assert results[2][3:] == ["2.0e-05", "≤ 1e-05: **not met**", "10 MB", "0.100", "–"]
    assert results[3][4:] == ["≤ 0.01: met", "not measured", "not measured", "–"]
    largest = {**cell, "shape": "1024x1024"}
    times, results = tables(encoder.render({"cells": [largest]}))
    assert times[2][5] == "≥ 5.5: **not met**" and results[2][7] == "≤ 0.05: **not met**"
    other = {**cell, "variant": "vit_l"}
    assert {row[5] for row in tables(encoder.render({"cells": [other]}))[0][1:]} == {"–"}


def test_needed_operations_are_those_that_torch_counts(load: Callable[[str], ModuleType]) -> None:
    encoders, shape = load("encoders"), load("options").Shape
    pair = encoders.build_pair("tiny")

    def counted(size: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            encoders.encode(pair.reference, encoders.random_images(size))
        return counter.get_total_flops()

    whole = shape(256, 128, 2)  # windows of 8 x 8 tokens need no padding
    assert encoders.needed_flops(pair.variant, whole) == counted(whole)
    padded = shape(64, 64)
    assert encoders.needed_flops(pair.variant, padded) < counted(padded)


def test_switches(run: Callable[..., Any], load: Callable[[str], ModuleType]) -> None:
    precision = torch.backends.mkldnn.matmul.fp32_precision
    figures, text, environments = run("switches")
    assert torch.backends.mkldnn.matmul.fp32_precision == precision
    (cell,) = figures["cells"]
    sets = load("switches").SETS
    assert environments == [dict(switches.environment) for switches in sets.values()]
    assert environments[0] == {} and list(cell["sets"]) == list(sets)
    for sides in cell["sets"].values():
        assert set(sides) == {"reference", "fp32", "bf16"}
        assert all(
            len(side["seconds"]) == ROUNDS and side["faults"] >= 0 for side in sides.values()
        )
    assert cell["sets"]["none"]["reference"]["error"] == 0
    assert 0 < cell["sets"]["none"]["fp32"]["error"] < 1e-5
    assert len(tables(text)[0]) == 1 + 3 * len(sets)


def test_a_switch_is_compared_with_the_reference_with_and_without_it(
    load: Callable[[str], ModuleType],
) -> None:
    def side(seconds: float) -> dict[str, Any]:
        return {"seconds": [seconds], "faults": 1234, "error": 0.0}

    none = {"reference": side(4.8), "fp32": side(2.0), "bf16": side(1.0)}
    fair = {"reference": side(2.4), "fp32": side(1.0), "bf16": side(1.0)}
    cell = {"variant": "vit_b", "shape": "512x512", "sets": {"none": none, "huge pages": fair}}
    (table,) = tables(load("switches").render({"cells": [cell]}))
    rows = {(row[2], row[3]): row[5:] for row in table[1:]}
    assert rows["none", "fp32"][:3] == ["2.40 (2.40…2.40)", "≥ 2.4: met", "2.40 (2.40…2.40)"]
    found = rows["huge pages", "fp32"]
    assert found == ["4.80 (4.80…4.80)", "–", "2.40 (2.40…2.40)", "1,234", "0.0e+00"]
    assert rows["none", "reference"][0] == "1" and rows["huge pages", "reference"][2] == "1"


def test_training(run: Callable[..., Any]) -> None:
    figures, text, _ = run("training", "--sizes", "32")
    (cell,) = figures["cells"]
    first, *ours, last = cell["sides"]
    parameters = {"tokens", "rho", *(f"mlp.{i}.{kind}" for i in (0, 2) for kind in WEIGHTS)}
    for name in ours:
        errors = cell["sides"][name]["errors"]
        assert set(errors) == parameters
        low, high = (0, 1e-5) if name.startswith("fp32") else (1e-5, 3e-2)
        assert all(low <= error < high for error in errors.values())
        assert len(cell["sides"][name]["seconds"]) == ROUNDS and "memory" in cell["sides"][name]
    assert cell["sides"][last]["errors"] == {}
    assert [row[2] for row in tables(text)[0][1:]] == [first, *ours, last]


WEIGHTS = ("weight", "bias")


def test_trainings_table_holds_the_targets_against_what_was_measured(
    load: Callable[[str], ModuleType],
) -> None:
    training = load("training")
    side = {"seconds": [1.0], "memory": {"extra": 100, "kept": 0}, "errors": {}}
    mine = {"seconds": [0.3], "memory": {"extra": 66, "kept": 0}, "errors": {"a": 1e-6, "b": 2e-5}}
    sides = {name: mine for name in training.MODES}
    cell = {"variant": "vit_b", "shape": "512x512@2"}
    cell |= {"sides": {training.REFERENCE: side, **sides, training.FULL: side}}
    (table,) = tables(training.render({"cells": [cell]}))
    by_step = {row[2]: row for row in table}
    fp32, bf16 = by_step["fp32"], by_step["bf16"]
    assert fp32[4:6] == ["0.30 (0.30…0.30)", "≤ 0.45: met"]
    assert fp32[7:] == ["0.66", "≤ 0.66: met", "2.0e-05", "≤ 1e-05: **not met**"]
    assert bf16[5] == "≤ 0.27: **not met**" and bf16[10] == "≤ 0.02: met"
    for part in ("MLPs", "layers"):
        assert by_step[f"fp32, {part} recomputed"][5] == "≤ 0.76: met"
    full = by_step[training.FULL]
    assert full[5] == full[8] == "–"


def test_the_plain_adapters_are_ftm_and_full_fine_tuning_reaches_every_weight(
    load: Callable[[str], ModuleType],
) -> None:
    encoders, training = load("encoders"), load("training")
    variant = encoders.SAM_VARIANTS["tiny"]
    ftm = encoders.build_adapters(variant)
    features = torch.randn(2, 3, 5, variant.dim)
    plain = training.plain_ftm(ftm, 3, features).detach()
    assert relative_error(plain, ftm(3, features).detach()) < 1e-6
    assert relative_error(plain, features) > 1e-3
    reference = encoders.build_reference(variant)
    step, adapters = training.build_step(reference, variant, training.FULL)
    assert adapters is None and not any(p.requires_grad for p in reference.parameters())
    step(*training._batch(load("options").Shape(64, 64), variant))
    trained = step.args[0]
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_parts(run: Callable[..., Any], load: Callable[[str], ModuleType]) -> None:
    figures, text, _ = run("parts")
    assert [cell["dtype"] for cell in figures["cells"]] == ["fp32", "bf16"]
    for cell in figures["cells"]:
        assert list(cell["shares"]) == list(load("models").PARTS)
        assert all(0 < share < 1 for share in cell["shares"].values())
        assert set(cell["seconds"]) == {"encoder alone", "whole model"}
    (clip,) = figures["clip"]
    assert len(clip["seconds"]) == 3 and all(
        set(t) == {"fp32", "bf16"} for t in clip["seconds"].values()
    )
    parts, towers = tables(text)
    assert len(parts) == 3 and len(towers) == 7


def test_parts_add_up_and_a_part_that_does_not_run_is_noticed(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = load("models")
    model = models.build_schnet("tiny", classes=3, tokens=4)
    photos = models.random_photos(load("options").Shape(32, 48))
    now = iter(range(10_000))
    monkeypatch.setattr(models.time, "perf_counter", lambda: float(next(now)))
    with models.PartClock(model) as clock:
        start = next(now)
        with clock.one_pass() as seconds:
            (labels,) = models.parse(model, photos)
        # Every look at the clock takes a second here, and none is lost or counted twice.
        assert sum(seconds.values()) == next(now) - start - 2
        # A call looks twice: 1 for each, and 1 more in the encoder before each call inside it.
        calls = {"FTM": 8, "CLIP": 1, "SRM": 1 + 5, "head": 1, "encoder": 1 + 8 + 5}
        assert {part: seconds[part] for part in calls} == calls
        assert labels.shape == (32, 48) and labels.max() < 3
        model.sem_seg_head.feedback = False
        model.clip.forward = lambda images: pytest.fail("not reached")
        with pytest.raises(RuntimeError, match="modules of CLIP, FTM, SRM, encoder, head were not"):
            with clock.one_pass():
                pass
    assert not any(module._forward_hooks for module in model.modules())


def test_operators(run: Callable[..., Any], load: Callable[[str], ModuleType]) -> None:
    figures, text, _ = run("operators")
    operators = load("operators")
    assert [cell["dtype"] for cell in figures["cells"]] == ["fp32", "bf16"]
    for cell in figures["cells"]:
        assert list(cell["seconds"]) == [*operators.KINDS, operators.OTHER]
        for kind in ("linear layers", "attention's products", "convolutions", "softmax", "norms"):
            assert cell["seconds"][kind] > 0, kind
    (table,) = tables(text)
    shares = [float(cell.removesuffix(" %")) for cell in table[1][3:]]
    assert sum(shares) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("mkldnn::_linear_pointwise", "linear layers"),
        ("aten::baddbmm", "attention's products"),
        ("aten::_softmax", "softmax"),
        ("aten::native_layer_norm", "norms"),
        ("mkldnn::_convolution_pointwise", "convolutions"),
        ("aten::copy_", "copies"),
        ("aten::empty", "other"),
    ],
)
def test_kinds_of_operators(load: Callable[[str], ModuleType], operator: str, kind: str) -> None:
    assert load("operators").kind_of(operator) == kind


def test_sizes(run: Callable[..., Any], load: Callable[[str], ModuleType]) -> None:
    figures, text, _ = run("sizes", "--sizes", "64", "128@2")
    assert [cell["shape"] for cell in figures["cells"]] == ["64x64", "128x128@2"]
    assert [cell["padding"] for cell in figures["cells"]] == [3.0, 0.0]
    sides = list(load("sizes").SIDES)
    assert all(list(cell["seconds"]) == sides for cell in figures["cells"])
    assert len(tables(text)[0]) == 1 + 2 * len(sides)


def test_sizes_cost_by_image_and_by_megapixel(load: Callable[[str], ModuleType]) -> None:
    sizes, shape = load("sizes"), load("options").Shape
    vit_b = load("encoders").SAM_VARIANTS["vit_b"]
    assert sizes.padded_share(vit_b, shape(512, 512)) == 42 * 42 / 32**2 - 1
    assert sizes.padded_share(vit_b, shape(672, 448)) == 0
    seconds = {side: [2.0] for side in sizes.SIDES}
    cells = [
        {"variant": "vit_b", "shape": "1000x1000", "padding": 0.0, "seconds": seconds},
        {"variant": "vit_b", "shape": "1000x500@4", "padding": 0.5, "seconds": seconds},
    ]
    cells = json.loads(json.dumps(cells).replace("1000", "1008").replace("500", "496"))
    (table,) = tables(sizes.render({"cells": cells}))
    assert table[2][2:] == [
        *("1008x496@4", "0.500", "50 %", "500 ms (500…500)"),
        *(f"{0.5 / (1008 * 496 / 1e6):.2f} s", "0.25"),
    ]


def test_growth(run: Callable[..., Any], load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    growth = load("growth")
    figures, text, environments = run("growth")
    assert figures["variant"] == "tiny" and environments == [load("memory").ENVIRONMENT]
    axes = figures["axes"]
    assert [[point["x"] for point in axis["points"]] for axis in axes.values()] == [
        [32 * 32, 64 * 64],
        list(growth.BATCHES),
        list(growth.LABELS),
        list(growth.TOKEN_NUMBERS),
    ]
    assert all(len(p["seconds"]) == ROUNDS for axis in axes.values() for p in axis["points"])
    assert all(set(axis["slopes"]) == {"time", "memory"} for axis in axes.values())
    assert len(tables(text)[0]) == 1 + sum(len(axis["points"]) for axis in axes.values())
    picture = tmp_path / growth.PICTURE
    assert picture.read_bytes().startswith(b"\x89PNG")
    for options, message in (
        (["--sizes", "64"], "two sizes or more"),
        (["--sizes", "64", "32@2"], "without batches"),
        (["--variant", "tiny", "--variant", "vit_b"], "more than once"),
    ):
        with pytest.raises(InputError, match=message):
            run("growth", *options)


def test_slopes_are_powers_and_are_drawn_without_memory_too(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    growth = load("growth")
    assert growth.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    rows = [{"memory": {"extra": extra}} for extra in (5, 10, 20)]
    assert growth._memory_slope([1, 2, 4], rows) == pytest.approx(1)
    assert growth._memory_slope([1, 2, 4], [*rows[:2], {"memory": None}]) is None
    points = [{"x": x, "seconds": [1.0, 2.0], "memory": None} for x in (1, 2)]
    axes = {"labels": {"points": points, "slopes": {"time": 0.0, "memory": None}}}
    load("growth_picture").draw_growth(tmp_path / "x.png", axes, "tiny")
    assert (tmp_path / "x.png").stat().st_size > 0
    assert "not measured" in growth.render({"variant": "tiny", "axes": axes})


def test_models_of_the_growth_share_what_does_not_differ(load: Callable[[str], ModuleType]) -> None:
    models = load("growth").Models("tiny")
    first, second = models.get(7, 4), models.get(20, 9)
    assert models.get(7, 4) is first and first is not second
    assert second.backbone.encoder is first.backbone.encoder
    assert second.backbone.ftm.tokens.shape[1] == 9
    assert second.sem_seg_head.classifier.predict.out_channels == 20


def test_all_runs_each_by_name_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tool, commands, codes = load_script("tools/benchmark.py"), [], {"sizes": 3}

    def fake(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command[2:])
        return subprocess.CompletedProcess(command, codes.get(command[2], 0))

    monkeypatch.setattr(tool.subprocess, "run", fake)
    with pytest.raises(InputError, match="benchmark sizes failed with code 3"), caplog.at_level(20):
        tool.main(["all", "--readme"])
    names = list(tool.MINUTES)
    assert commands == [[name, "--readme"] for name in names[: names.index("sizes") + 1]]
    assert f"about {sum(tool.MINUTES.values())} minutes" in caplog.text
    codes.clear()
    commands.clear()
    tool.main(["all"])
    assert commands == [[name] for name in names] and set(names) < set(tool.BENCHMARKS)
