"""Names once given stay, whatever photos come later."""

from __future__ import annotations

from pathlib import Path

import pytest

from schnet.batch.layout import SUFFIXES
from schnet.batch.names import PLAN_FILE, plan_names
from schnet.errors import InputError


def plan(folder: Path, *names: str) -> dict[str, tuple[int, str]]:
    """Plan the results of photos in `in/`: number and name of each that is in the plan."""
    (folder / "out" / ".schnet").mkdir(parents=True, exist_ok=True)
    home = folder / "in"
    found = plan_names([home / name for name in names], folder / "out")
    return {
        str(Path(path).relative_to(home.resolve())): (planned.number, planned.name)
        for path, planned in found.items()
    }


def test_names_and_numbers_stay_as_more_photos_come(tmp_path: Path) -> None:
    first = plan(tmp_path, "a.jpg", "b.jpg")
    assert first == {"a.jpg": (0, "a"), "b.jpg": (1, "b")}
    second = plan(tmp_path, "x/a.jpg", "a.png", "b.jpg")
    assert {name: second[name] for name in first} == first
    assert len({name for _, name in second.values()}) == 4
    assert sorted(number for number, _ in second.values()) == [0, 1, 2, 3]
    assert plan(tmp_path, "a.png") == second


def test_no_result_of_one_photo_is_that_of_another(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "A.jpg", "a_overlay.jpg", "x/a.jpg", "y/x/a.jpg", "run.jpg"]
    planned = [name for _, name in plan(tmp_path, *names).values()]
    results = [(name + suffix).casefold() for name in planned for suffix in SUFFIXES]
    assert len(set(results)) == len(results) == 3 * len(names)


def test_photos_in_the_output_folder_keep_their_names_to_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / ".schnet").mkdir(parents=True)
    (planned,) = plan_names([folder / "a.png"], folder).values()
    assert planned.name + ".png" != "a.png"


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    plan(tmp_path, "a.jpg")
    (tmp_path / "out" / ".schnet" / PLAN_FILE).write_text('{"input": 3')
    with pytest.raises(InputError, match=f"{PLAN_FILE} is damaged"):
        plan(tmp_path, "b.jpg")
