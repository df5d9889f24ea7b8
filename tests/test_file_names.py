"""File names of data sets: walked, keyed, told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from permissions import locked_folder

from schnet.data.file_names import IMAGE_ENDINGS, LABEL_ENDINGS, key_by_stem, walk_files
from schnet.errors import InputError


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_walk_is_sorted_and_leaves_litter_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.txt", "z/2.jpg", "c/d/1.jpg", ".hidden.jpg", "c/._1.jpg"):
        touch(tmp_path / name)
    touch(tmp_path / ".trash" / "1.jpg")
    touch(tmp_path / "__MACOSX" / "c" / "1.jpg")
    touch(tmp_path / "lost+found" / "1.jpg")
    (tmp_path / "empty").mkdir()
    assert list(walk_files(tmp_path)) == [
        ("", ["a.txt", "b.png"]),
        ("c/", []),
        ("c/d/", ["1.jpg"]),
        ("empty/", []),
        ("z/", ["2.jpg"]),
    ]


def test_walk_follows_links_and_ends(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "1.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "data")
    assert list(walk_files(tmp_path / "data")) == [("", []), ("link/", ["1.jpg"])]


def test_a_folder_that_cannot_be_read_is_never_passed_over_in_silence() -> None:
    with locked_folder("a.png") as folder:
        with pytest.raises(InputError, match=rf"^the folder {folder}/locked cannot be read \(Perm"):
            list(walk_files(folder))
        told: list[Path] = []
        assert list(walk_files(folder, told.append)) == [("", ["a.png"])]
        assert told == [folder / "locked"]


def test_names_are_keyed_without_their_ending() -> None:
    names = ["b.JPG", "deep/a.b.png", "notes.txt", "a.jpeg"]
    found = key_by_stem(names, IMAGE_ENDINGS, "x")
    assert found == {"a": "a.jpeg", "b": "b.JPG", "deep/a.b": "deep/a.b.png"}
    assert list(found) == ["a", "b", "deep/a.b"]
    assert key_by_stem(names, LABEL_ENDINGS, "x") == {"deep/a.b": "deep/a.b.png"}


def test_one_name_with_two_endings_is_refused() -> None:
    key_by_stem(["a.jpg", "b/a.png", "a.txt"], IMAGE_ENDINGS, "x")
    with pytest.raises(InputError, match=r"^x/y holds a\.jpg and a\.png, which have one name"):
        key_by_stem(["a.png", "a.jpg"], IMAGE_ENDINGS, Path("x/y"))
