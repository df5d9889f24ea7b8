"""Folders and zip files of a download."""

from __future__ import annotations

import multiprocessing
import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from schnet.data.preparation.sources import open_source, stat_file
from schnet.errors import InputError


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def open_descriptor(path: Path) -> int:
    """Find the descriptor through which this process has a file open."""
    for name in os.listdir("/proc/self/fd"):
        link = Path("/proc/self/fd", name)
        if link.exists() and link.resolve() == path.resolve():
            return int(name)
    raise AssertionError(f"{path} is not open")


def test_folder_is_found_by_the_end_of_its_path(tmp_path: Path) -> None:
    write(tmp_path / "a" / "a" / "train_images" / "1.jpg", "one")
    write(tmp_path / "a" / "x_train_images" / "2.jpg")
    write(tmp_path / "a" / "train_images_reversed" / "3.jpg")
    folder = open_source([tmp_path]).find_folder(["train_images"])
    assert folder is not None and list(folder.files) == ["1.jpg"]
    assert folder.path == str(tmp_path / "a" / "a" / "train_images")
    file = folder.files["1.jpg"]
    assert (file.path, file.read("image")) == (f"{folder.path}/1.jpg", b"one")
    assert open_source([tmp_path]).find_folder(["val_images"]) is None


def test_the_source_itself_may_be_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "Training" / "Images" / "1.jpg")
    for source in ("Training", "Training/Images"):
        folder = open_source([tmp_path / source]).find_folder(["Training/Images"])
        assert folder is not None and folder.path == str(tmp_path / "Training" / "Images")


def test_zip_members_read_like_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/Images/", "")
        archive.writestr("top/Images/1.jpg", "one")
        archive.writestr("__MACOSX/top/Images/._1.jpg", "attributes")
        archive.writestr("top/Images/.hidden.jpg", "hidden")
        archive.writestr("list.txt", "1")
        archive.writestr("__MACOSX/top/Images/2.jpg", "attributes")
        archive.writestr(".trash/Images/3.jpg", "hidden")
    for source in (tmp_path / "a.ZIP", tmp_path):
        tree = open_source([source])
        folder = tree.find_folder(["Images"])
        assert folder is not None and folder.archived and list(folder.files) == ["1.jpg"]
        assert folder.files["1.jpg"].read("image") == b"one"
        file = tree.find_file("list.txt")
        assert file is not None and file.read("list") == b"1"


def test_unpacked_files_are_preferred_to_their_zip(tmp_path: Path) -> None:
    write(tmp_path / "Images" / "1.jpg")
    write(tmp_path / "list.txt", "unpacked")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("Images/1.jpg", "x")
        archive.writestr("list.txt", "archived")
    tree = open_source([tmp_path])
    folder, file = tree.find_folder(["Images"]), tree.find_file("list.txt")
    assert folder is not None and not folder.archived
    assert file is not None and file.read("list") == b"unpacked"


def test_empty_folders_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a" / "Images").mkdir(parents=True)
    write(tmp_path / "b" / "Images" / "1.jpg")
    folder = open_source([tmp_path]).find_folder(["Images"])
    assert folder is not None and folder.path == str(tmp_path / "b" / "Images")
    assert open_source([tmp_path / "a"]).find_folder(["Images"]) is None


def test_ambiguous_folders_and_lists_are_named(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        write(tmp_path / copy / "Images" / "1.jpg")
        write(tmp_path / copy / "same.txt", "1")
        write(tmp_path / copy / "other.txt", copy)
    tree = open_source([tmp_path])
    with pytest.raises(InputError, match="both .*a/Images and .*b/Images may be"):
        tree.find_folder(["Images"])
    assert tree.find_file("same.txt") is not None
    with pytest.raises(InputError, match=r"a/other\.txt and .*b/other\.txt differ"):
        tree.find_file("other.txt")
    assert tree.find_file("nothing.txt") is None


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write(tmp_path / "data" / "Images" / "1.jpg")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    (tmp_path / "data" / "Images" / "2.jpg").symlink_to(tmp_path / "gone")
    folder = open_source([tmp_path]).find_folder(["Images"])
    assert folder is not None and list(folder.files) == ["1.jpg"]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "Images" / "1.jpg")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "disk")
    assert open_source([tmp_path / "source"]).find_folder(["Images"]) is not None


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_damaged_zip_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip cannot be read as a zip file"):
        open_source([tmp_path / "a.zip"])


def test_damaged_member_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("Images/1.jpg", "payload")
    data = (tmp_path / "a.zip").read_bytes()
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    # Bit 0 of the flags is a password, and 97 a compression that Python does not know.
    for number, (changes, told) in enumerate(
        (
            ({data.index(b"payload"): ord("q")}, "Bad CRC"),
            ({local + 6: 1, central + 8: 1}, "encrypted"),
            ({local + 8: 97, central + 10: 97}, "compression"),
        )
    ):
        changed = bytearray(data)
        for place, value in changes.items():
            changed[place] = value
        path = tmp_path / f"{number}.zip"
        path.write_bytes(changed)
        folder = open_source([path]).find_folder(["Images"])
        assert folder is not None
        with pytest.raises(InputError, match=rf"the image Images/1\.jpg cannot .*\d\.zip .*{told}"):
            folder.files["1.jpg"].read("image")


@pytest.mark.parametrize("name", ["../Images/1.jpg", "/Images/1.jpg", "Images/../../1.jpg"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(InputError, match=f"unsafe name '{name}'"):
        open_source([tmp_path / "a.zip"])


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--source .*nowhere does not exist"):
        open_source([tmp_path / "nowhere"])


def test_stamp_changes_with_the_content(tmp_path: Path) -> None:
    stamps = []
    for content in ("one", "two"):
        with zipfile.ZipFile(tmp_path / f"{content}.zip", "w") as archive:
            archive.writestr("Images/1.jpg", content)
        folder = open_source([tmp_path / f"{content}.zip"]).find_folder(["Images"])
        assert folder is not None
        stamps.append((folder.files["1.jpg"].size, folder.files["1.jpg"].stamp))
    assert stamps[0][0] == stamps[1][0] and stamps[0] != stamps[1]
    path = write(tmp_path / "1.jpg", "one")
    first = stat_file(tmp_path, "1.jpg")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    second = stat_file(tmp_path, "1.jpg")
    assert first is not None and second is not None
    assert (first.size, first.stamp + 1) == (second.size, second.stamp)


def test_contains(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    tree = open_source([tmp_path / "source"])
    assert tree.contains(tmp_path / "source") and tree.contains(tmp_path / "source" / "a" / "b")
    assert not tree.contains(tmp_path) and not tree.contains(tmp_path / "source2")


def test_forked_process_reads_a_zip_through_its_own_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in "12":
            archive.writestr(f"Images/{name}.jpg", "one" * 99999)
    folder = open_source([tmp_path / "a.zip"]).find_folder(["Images"])
    assert folder is not None
    descriptor = open_descriptor(tmp_path / "a.zip")
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(folder.files["1.jpg"].read, "image").result() == b"one" * 99999
    # A position that moves is shared, and processes would move it under each other's reading.
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == before
