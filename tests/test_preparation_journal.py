"""The journal: what counts as unchanged, what an interruption leaves, a full disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from schnet.data.index import IndexRecord
from schnet.data.preparation.journal import Journal
from schnet.data.preparation.pairs import OutputFile, PairResult, PairStatus, PairTask
from schnet.data.preparation.sources import SourceFile
from schnet.errors import exit_on_input_error

IMAGE = SourceFile("/data", "images/a.jpg", False, 100, 1)
LABEL = SourceFile("/data", "labels/a.png", False, 50, 2)
TASK = PairTask("a", IMAGE, LABEL)
RESULT = PairResult(
    PairStatus.CHECKED,
    record=IndexRecord("a.jpg", "a.png", 4, 3),
    pixel_counts=(10, 2),
    ignored=1,
    mode="CMYK",
    turned=True,
)
FAULT = PairResult(PairStatus.MISSING, has_image=False, problem="the image b is missing")
SETTINGS = {"classes": ("background", "hat"), "ignored": 255}


def write(path: Path, result: PairResult = RESULT, task: PairTask = TASK) -> None:
    with Journal(path, SETTINGS) as journal:
        journal.add(task, result)


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal"
    write(path)
    write(path, FAULT, PairTask("b", None, LABEL))
    journal = Journal(path, SETTINGS)
    assert journal.find(TASK, tmp_path) == RESULT
    assert journal.find(PairTask("b", None, LABEL), tmp_path) == FAULT
    assert journal.find(PairTask("c", None, LABEL), tmp_path) is None


@pytest.mark.parametrize(
    "change", [{"root": "/other"}, {"name": "a.jpeg"}, {"size": 99}, {"stamp": 3}]
)
def test_changed_files_are_checked_again(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path / "journal")
    journal = Journal(tmp_path / "journal", SETTINGS)
    for task in (
        replace(TASK, image=replace(IMAGE, **change)),
        replace(TASK, label=replace(LABEL, **change)),
        replace(TASK, label=None),
    ):
        assert journal.find(task, tmp_path) is None


def test_lost_outputs_are_written_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"label")
    status = (tmp_path / "a.png").stat()
    output = OutputFile("a.png", status.st_size, status.st_mtime_ns)
    result = replace(RESULT, outputs=(output, output))
    write(tmp_path / "journal", result)
    journal = Journal(tmp_path / "journal", SETTINGS)
    assert journal.find(TASK, tmp_path) == result
    (tmp_path / "a.png").unlink()
    assert journal.find(TASK, tmp_path) is None


def test_other_settings_and_other_formats_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path)
    assert Journal(path, {**SETTINGS, "ignored": 0}).find(TASK, tmp_path) is None
    header, entry = path.read_text().splitlines()
    older = json.dumps({**json.loads(header), "format": "schnet-journal/0"})
    path.write_text(f"{older}\n{entry}\n")
    assert Journal(path, SETTINGS).find(TASK, tmp_path) is None


def test_every_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", SETTINGS) as journal:
        journal.add(TASK, RESULT)
        # As a run finds it whose predecessor was killed here.
        assert Journal(tmp_path / "journal", SETTINGS).find(TASK, tmp_path) == RESULT


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a", "task": [null, nu',
        "[]",
        "3",
        '{"id": "a", "result": {}}',
        '{"id": "a", "task": [], "result": {"status": "CHECKED"}}',
        '{"id": [], "task": [], "result": null}',
    ],
)
def test_damaged_lines_are_passed_over_and_removed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal"
    write(path)
    with path.open("a") as file:
        file.write(line)
    write(path, FAULT, PairTask("b", None, LABEL))
    assert [json.loads(text).get("id") for text in path.read_text().splitlines()] == [
        None,
        "a",
        "b",
    ]
    assert Journal(path, SETTINGS).find(TASK, tmp_path) == RESULT


def test_entry_that_does_not_say_its_files_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path)
    header, entry = path.read_text().splitlines()
    content = json.loads(entry)
    del content["task"]
    path.write_text(f"{header}\n{json.dumps(content)}\n")
    assert Journal(path, SETTINGS).find(TASK, tmp_path) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
@pytest.mark.parametrize("buffering", [1, -1], ids=["at a line", "at the end"])
def test_full_disk_is_one_line_that_names_the_journal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    buffering: int,
) -> None:
    path = tmp_path / "journal"
    write(path)

    def open_full(*_: object, **__: object) -> object:
        return open("/dev/full", "a", encoding="utf-8", buffering=buffering)

    monkeypatch.setattr("schnet.data.preparation.journal.open", open_full, raising=False)
    with pytest.raises(SystemExit), exit_on_input_error(), Journal(path, SETTINGS) as journal:
        journal.add(PairTask("b", None, LABEL), FAULT)
    assert capsys.readouterr().err.startswith(f"error: {path} cannot be read or written (No space")
    monkeypatch.undo()
    assert Journal(path, SETTINGS).find(TASK, tmp_path) == RESULT
