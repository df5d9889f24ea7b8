"""`results.jsonl`: the latest line of each photo counts, and no half of one is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schnet.batch.journal import Journal, file_version, join_files, read_entries
from schnet.errors import InputError


def line(photo: str, finished: float, **content: Any) -> str:
    """A line as `ResultWriter` writes it."""
    told = {"outputs": {"labels": f"{photo}.png"}, "run": "r", "version": [1, 2], **content}
    return json.dumps({"input": f"/{photo}", "finished": finished, **told}) + "\n"


def photos_of(file: Path) -> list[tuple[str, float]]:
    """Photo and time of each line."""
    found = [json.loads(text) for text in file.read_text().splitlines()]
    return sorted((entry["input"], entry["finished"]) for entry in found)


def test_of_two_lines_of_a_photo_the_later_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "results.jsonl", tmp_path / "results-1.jsonl"
    first.write_text(line("a", 5.0, run="new") + line("b", 1.0))
    second.write_text(line("a", 3.0, run="old") + line("b", 2.0, error="bad", outputs={}))
    entries = read_entries([first, second, tmp_path / "missing.jsonl"])
    assert entries["/a"].run == "new" and not entries["/a"].failed
    assert entries["/b"].failed and entries["/b"].files == ()
    # Written by the same clock tick, the later line counts.
    first.write_text(line("a", 5.0, run="one") + line("a", 5.0, run="two"))
    assert read_entries([first])["/a"].run == "two"


def test_joining_keeps_one_line_a_photo_and_removes_the_parts(tmp_path: Path) -> None:
    target, part = tmp_path / "results.jsonl", tmp_path / "results-1.jsonl"
    target.write_text(line("a", 1.0) + line("b", 1.0))
    part.write_text(line("b", 2.0) + line("c", 2.0))
    join_files([target, part], target)
    assert photos_of(target) == [("/a", 1.0), ("/b", 2.0), ("/c", 2.0)]
    assert not part.exists()
    before = target.stat().st_mtime_ns
    join_files([target], target)  # nothing to do: millions of lines are not written anew
    assert target.stat().st_mtime_ns == before


def test_a_line_that_was_cut_off_is_left_out_and_the_next_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "results.jsonl"
    target.write_text(line("a", 1.0) + line("b", 2.0)[:30])
    assert set(read_entries([target])) == {"/a"}
    join_files([target], target)
    journal = Journal(target)
    journal.append({"input": "/c", "outputs": {}, "run": "r", "version": []})
    journal.close()
    assert [photo for photo, _ in photos_of(target)] == ["/a", "/c"]


def test_nothing_makes_no_file(tmp_path: Path) -> None:
    join_files([tmp_path / "results.jsonl"], tmp_path / "results.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["no JSON\n", "[]\n", '{"input": "/a"}\n'])
def test_a_strange_line_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(line("a", 1.0) + text)
    with pytest.raises(InputError, match="line 2 of .*results.jsonl is none that"):
        read_entries([file])


def test_a_version_tells_a_change_and_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12")
    size, changed = file_version(file)
    assert size == 2 and changed == file.stat().st_mtime_ns
    assert file_version(tmp_path / "b") == ()
