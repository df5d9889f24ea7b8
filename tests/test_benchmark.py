from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from data_helpers import FLAT_LIP, make_pairs
from parsing_fakes import REPOSITORY, load_script

from schnet.data.catalog import register_datasets
from schnet.errors import InputError

SIDES = {"detectron2", "schnet", "schnet_jitter", "schnet_jitter_rotation"}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported, with its folder on the path as when it is run."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    return load_script("tools/benchmark.py")


@pytest.fixture
def loader(tool: ModuleType) -> ModuleType:
    from benchmarks import loader

    return loader


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three photos of LIP, with palette label maps."""
    make_pairs(tmp_path / "lip", ["a", "b", "c"], size=(70, 50), **FLAT_LIP)
    return tmp_path


def options(root: Path, *more: str) -> list[str]:
    crops = ["--crop", "48x32", "--crop", "96X64"]
    return ["loader", "--root", str(root), "--rounds", "1", "--photos", "2", *crops, *more]


def test_loader_table(root: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    threads = cv2.getNumThreads(), torch.get_num_threads()
    path = root / "figures.json"
    sets = ["--dataset", "lip_train", "--dataset", "cihp_train"]
    tool.main(options(root, *sets, "--json", str(path)))
    lines = capsys.readouterr().out.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]]
    assert table[0][:3] == ["Photos", "Stored", "Crop"] and {len(cells) for cells in table} == {8}
    assert [cells[:3] for cells in table[2:]] == [
        ["lip_train (2)", "70x50", "48x32"],
        ["lip_train (2)", "70x50", "96x64"],
        ["lip_train, enlarged 3x (2)", "210x150", "48x32"],
        ["lip_train, enlarged 3x (2)", "210x150", "96x64"],
    ]
    assert all(float(cell) > 0 for cells in table[2:] for cell in cells[3:])
    assert lines[6] == "" and lines[-1].startswith("Not measured: the data set cihp has no folder")
    content = json.loads(path.read_text())
    assert [row["crop"] for row in content["rows"]] == [[48, 32], [96, 64]] * 2
    for row, cells in zip(content["rows"], table[2:], strict=True):
        assert set(row["rates"]) == SIDES
        assert row["ratio"] == row["rates"]["schnet"] / row["rates"]["detectron2"]
        assert cells[5] == f"{row['ratio']:.2f}"
    assert (cv2.getNumThreads(), torch.get_num_threads()) == threads
    assert sorted(path.name for path in root.iterdir()) == ["figures.json", "lip"]


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.75, 1.0, 1.5])
def test_both_sides_do_the_same(root: Path, loader: ModuleType, scale: float, flip: float) -> None:
    register_datasets(str(root))
    (root / "grey").mkdir()
    entry = loader.load_photos("lip_train", 1, root / "grey").dicts[0]
    mappers = loader.build_mappers("lip_train", (70, 50), scale, flip)
    items = {side: mapper(entry) for side, mapper in mappers.items()}
    assert set(items) == SIDES
    for item in items.values():
        assert item["image"].shape == (3, 70, 50) and item["sem_seg"].shape == (70, 50)
    assert np.array_equal(items["schnet"]["sem_seg"], items["schnet_jitter"]["sem_seg"])
    assert not np.array_equal(items["schnet"]["image"], items["schnet_jitter"]["image"])
    if scale == 1.0:
        theirs, ours = items["detectron2"], items["schnet"]
        # Detectron2's flip swaps no labels.
        table = np.arange(256)
        table[[14, 15, 16, 17, 18, 19]] = [15, 14, 17, 16, 19, 18]
        labels = theirs["sem_seg"].numpy()
        assert np.array_equal(ours["sem_seg"], table[labels] if flip else labels)
        assert (theirs["image"].int() - ours["image"].int()).abs().max() <= 4


def test_different_shapes_void_the_comparison(loader: ModuleType) -> None:
    items = [
        {"image": np.zeros((3, 4, side)), "sem_seg": np.zeros((4, side))} for side in (5, 5, 6)
    ]
    loader.check_alike(*items[:2])
    with pytest.raises(RuntimeError, match="different shapes"):
        loader.check_alike(*items)


def test_bad_options(root: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"--rounds is 0: it must be at least 1"):
        tool.main(options(root, "--rounds", "0"))
    with pytest.raises(InputError, match=r"--json .* is a folder: name a file in it"):
        tool.main(options(root, "--json", str(root)))
    with pytest.raises(InputError, match="nothing to measure: there is no data set 'x'"):
        tool.main(options(root, "--dataset", "x"))
    for bad in ("5", "5x0", "axb"):
        with pytest.raises(SystemExit) as caught:
            tool.main(options(root, "--crop", bad))
        assert caught.value.code == 2 and repr(bad) in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main(["weights"])
    assert "choose from" in capsys.readouterr().err


def test_help_needs_only_the_chosen_benchmark(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"loader", "evaluation"} <= set(tool.BENCHMARKS)
    tool.BENCHMARKS["evaluation"] = "benchmarks.not_there"
    with pytest.raises(SystemExit) as caught:
        tool.main(["loader", "--help"])
    assert caught.value.code == 0 and "--crop HEIGHTxWIDTH" in capsys.readouterr().out
