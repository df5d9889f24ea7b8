from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY
from data_helpers import patchwork
from detectron2.data import DatasetCatalog
from parsing_fakes import write_split

from schnet.data.catalog import load_split
from schnet.data.specs import SPECS
from schnet.errors import InputError


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """The benchmark, imported as a script in `tools` imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tools"))
        yield importlib.import_module("benchmarks.evaluation")


def _arguments(benchmark: ModuleType, *opts: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(opts)


def _table(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def _check(text: str) -> None:
    header, rule, *rows = _table(text)
    assert header == ["work", "Detectron2, ms", "ours, ms", "faster", "mIoU differs by"]
    assert len(rows) == 5 and len({row[0] for row in rows}) == 5
    for row in rows:
        assert all(float(cell.removesuffix(" x")) > 0 for cell in row[1:4])
        assert float(row[4]) <= 1e-9


def test_drawn_label_maps_give_the_same_miou(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "DRAWN_SIZE", (96, 64))
    monkeypatch.setattr(benchmark, "TURN", 2)
    text = benchmark.run(_arguments(benchmark, "--images", "3", "--dataset", "lip"))
    assert text.startswith("3 predictions of 3 drawn label maps of lip (20 labels, about 0.01")
    _check(text)
    assert benchmark.TEMPORARY_NAME not in DatasetCatalog.list()


def test_label_maps_of_a_data_set_are_taken(benchmark: ModuleType, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, "ccp", split, [patchwork((40, 30), num_classes=16)])
    text = benchmark.run(_arguments(benchmark, "--images", "3", "--root", str(tmp_path)))
    assert text.startswith("3 predictions of 2 label maps of ccp (16 labels")
    _check(text)


def test_each_side_counts_what_it_is_given(benchmark: ModuleType, tmp_path: Path) -> None:
    spec = SPECS["ccp"]
    write_split(tmp_path, "ccp", "val", [patchwork((40, 30), num_classes=16)])
    entries = load_split(spec, "val", tmp_path)
    prediction = benchmark._predict(entries, spec, 0, 0)
    assert 0.5 < np.mean(prediction.labels == prediction.truth) < 1
    with benchmark._registered(spec, entries):
        contests = benchmark._contests(spec)
        for contest in contests:
            contest.step([prediction, prediction], ours_first=True)
    for contest in contests:
        theirs, ours = (side.mean_iou() for side in contest._sides)
        assert 0 < theirs < 100
        assert theirs == pytest.approx(ours, abs=1e-9)


def test_impossible_arguments_are_refused(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--images is 0"):
        benchmark.run(_arguments(benchmark, "--images", "0"))
    with pytest.raises(InputError, match="ccp"):
        benchmark.run(_arguments(benchmark, "--root", str(tmp_path)))
