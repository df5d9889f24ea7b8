from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY
from instance_helpers import nudged, random_persons, write_prediction, write_truth

from schnet.errors import InputError

SCRIPT = REPOSITORY / "tools" / "evaluate_instances.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return __import__("evaluate_instances")


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for index in range(3):
        truth = random_persons(rng, (20, 30), 20)
        write_truth(tmp_path / "gt" / "Validation", f"{index}", truth)
        write_prediction(tmp_path / "pred", f"{index}", nudged(rng, truth, 20))
    return ["--pred", str(tmp_path / "pred"), "--gt", str(tmp_path / "gt")]


def test_prints_and_writes_the_results(
    tool: ModuleType, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    tool.main([*folders, "--output", str(output), "--jobs", "1"])
    printed = capsys.readouterr().out
    assert (output / "instances.txt").read_text() in printed
    assert f"wrote {output / 'instances.json'}" in printed
    content = json.loads((output / "instances.json").read_text())
    assert content["dataset"] == "cihp" and content["images"] == 3
    assert content["AP_p"]["0.1"] > 0 and "Torso-skin" in content["AP_r_per_class"]


def test_without_output_nothing_is_written(
    tool: ModuleType, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    tool.main(folders)
    assert sorted(tmp_path.rglob("*")) == before
    assert "PCP at 0.5" in capsys.readouterr().out


def test_classes_are_those_of_the_data_set(
    tool: ModuleType, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tool.main([*folders, "--dataset", "lip"])
    assert "| Jumpsuits" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"labels must be 0\.\.6"):
        tool.main([*folders, "--dataset", "ppp"])


def test_instances_are_made_of_the_maps_when_asked(
    tool: ModuleType, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.main(folders)
    from_lists = capsys.readouterr().out
    for path in (tmp_path / "gt").rglob("*.txt"):
        path.write_text("damaged")
    tool.main([*folders, "--gt-from-maps"])
    assert capsys.readouterr().out == from_lists


@pytest.mark.parametrize("place", ["file", "pred/instance_parsing", "gt/Validation/Human_ids"])
def test_output_among_the_inputs_is_refused(
    tool: ModuleType, folders: list[str], tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=f"--output .*{place} is a f"):
        tool.main([*folders, "--output", str(tmp_path / place)])
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_files_of_others_are_not_replaced(
    tool: ModuleType, folders: list[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine" / "instances.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(InputError, match=r"instances\.txt was not written by an evaluation"):
        tool.main([*folders, "--output", str(mine.parent)])
    assert mine.read_text() == "precious"
    for _ in range(2):
        tool.main([*folders, "--output", str(tmp_path / "own"), "--jobs", "1"])


def test_bad_input_is_one_line_and_exit_code_two(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "pred" / "instance_parsing" / "1.txt").unlink()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: the folder") and "lacks 1.txt" in done.stderr
    assert done.stderr.count("\n") == 1
