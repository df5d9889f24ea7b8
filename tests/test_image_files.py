from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from permissions import as_nobody, locked_folder

from schnet.errors import InputError
from schnet.image_files import collect_images, output_names, paths_in_list, real_path

SUFFIXES = (".png", "_overlay.png")


def _touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_files_folders_and_patterns_in_order_and_once(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jpg", "a.PNG", "sub/c.jpeg", "notes.txt", ".hidden.jpg", "z/one.webp")
    found = collect_images(
        [str(tmp_path / "b.jpg"), str(tmp_path), str(tmp_path / "z" / "*"), str(tmp_path / "z")]
    )
    assert [str(p.relative_to(tmp_path)) for p in found] == [
        "b.jpg",
        "a.PNG",
        "sub/c.jpeg",
        "z/one.webp",
    ]


def test_named_file_is_taken_whatever_it_is(tmp_path: Path) -> None:
    named = [str(tmp_path / "missing.jpg"), *map(str, _touch(tmp_path, "x[1].dat"))]
    assert [str(p) for p in collect_images(named)] == named


def test_what_cannot_be_looked_at_is_kept_for_reading_to_report() -> None:
    with tempfile.TemporaryDirectory() as name:  # not pytest's, which only its owner may enter
        folder = Path(name)
        locked, half = _touch(folder, "secret/locked.jpg", "half/a.jpg")
        loop = folder / "loop.jpg"
        loop.symlink_to(loop)
        paths = [str(folder / ("x" * 300)), str(loop), f"{folder}/nul\0.jpg", str(locked)]
        folder.chmod(0o755)
        locked.parent.chmod(0)
        half.parent.chmod(0o444)  # names can be read in it, and no more
        with as_nobody():
            assert [str(path) for path in collect_images(paths)] == paths
            assert [str(path) for path in collect_images([], listed=paths)] == paths
            assert [str(real_path(Path(path))) for path in paths] == paths
            assert collect_images([str(half.parent)]) == [half]
            assert collect_images([str(locked.parent)]) == [locked.parent]
        half.parent.chmod(0o755)
        locked.parent.chmod(0o755)
    assert len(set(output_names([Path(path) for path in paths], SUFFIXES))) == len(paths)


def test_a_folder_that_cannot_be_read_is_kept_for_reading_to_report() -> None:
    with locked_folder("a.jpg", "z.jpg") as folder:
        names = ["a.jpg", "locked", "z.jpg"]
        assert collect_images([str(folder)]) == [folder / name for name in names]
        assert collect_images([], listed=[str(folder)]) == [folder / name for name in names]


def test_linked_folders_are_searched_and_loops_end(tmp_path: Path) -> None:
    _touch(tmp_path, "disk/1.jpg", "disk/.hidden/2.jpg", "disk/.3.jpg", "in/z.jpg")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "in" / ".secret").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "in")
    found = collect_images([str(tmp_path / "in")])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["in/link/1.jpg", "in/z.jpg"]


def test_a_list_may_begin_with_a_byte_order_mark() -> None:
    assert paths_in_list(["\ufeffa.jpg\r\n", "\n", "b.jpg"]) == ["a.jpg", "b.jpg"]
    assert paths_in_list(["\ufeff\n", "\ufeffb.jpg"]) == ["\ufeffb.jpg"]


def test_skipped_paths_only_concern_folders_and_patterns(tmp_path: Path) -> None:
    first, second = _touch(tmp_path, "a.png", "b.png")
    assert collect_images([str(tmp_path)], skip={first.resolve()}) == [second]
    assert collect_images([str(tmp_path / "*.png")], skip={first.resolve()}) == [second]
    assert collect_images([str(first)], skip={first.resolve()}) == [first]


def test_recursive_pattern(tmp_path: Path) -> None:
    _touch(tmp_path, "a/b/c.jpg", "d.jpg")
    found = collect_images([str(tmp_path / "**" / "*.jpg")])
    assert sorted(p.name for p in found) == ["c.jpg", "d.jpg"]


@pytest.mark.parametrize("text", ["empty", "*.jpg"])
def test_nothing_found_names_the_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image") as caught:
        collect_images([str(tmp_path / text)])
    assert str(tmp_path / text) in str(caught.value)
    with pytest.raises(InputError, match="no input is given"):
        collect_images([])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.jpg", "b.v2.jpg"], ["a", "b.v2"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg", "a.png", "b"]),
        (["A.jpg", "a.png"], ["A.jpg", "a.png"]),
        (["x/a.jpg", "y/a.jpg"], ["x__a.jpg", "y__a.jpg"]),
        (["x/p/a.jpg", "y/p/a.jpg"], ["x__p__a.jpg", "y__p__a.jpg"]),
        # The label map of the second would be the overlay of the first.
        (["a.jpg", "a_overlay.jpg"], ["a.jpg", "a_overlay.jpg"]),
        # What a clash moves to may clash again.
        (["x/a.jpg", "x/a.png", "x/a.jpg.tif"], ["x__a.jpg", "a.png", "a.jpg.tif"]),
    ],
)
def test_names_never_collide(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    paths = [tmp_path / file for file in files]
    assert output_names(paths, SUFFIXES) == expected
    assert output_names(paths[::-1], SUFFIXES) == expected[::-1]


def test_paths_that_coincide_when_joined_still_differ() -> None:
    paths = [Path("/a__b/c.jpg"), Path("/a/b__c.jpg"), Path("/c.jpg"), Path("/A__B/C.JPG")]
    names = output_names(paths, SUFFIXES)
    files = [(name + suffix).casefold() for name in names for suffix in SUFFIXES]
    assert len(set(files)) == len(files)


def test_reserved_names_are_not_taken(tmp_path: Path) -> None:
    assert output_names([tmp_path / "a.png"], SUFFIXES, reserved=["a.png"]) == ["a.png"]
    assert output_names([tmp_path / "a.png"], SUFFIXES, reserved=["A_overlay.PNG"]) == ["a.png"]
