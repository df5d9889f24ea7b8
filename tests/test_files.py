from __future__ import annotations

import errno
from pathlib import Path

import pytest

from schnet.data.files import atomic_path


def test_writes_into_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deeper" / "a.png"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole" and list(target.parent.iterdir()) == [target]


def test_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("ha")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_errors_of_a_full_disk_name_the_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    with pytest.raises(OSError) as caught, atomic_path(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(target)
    with pytest.raises(OSError) as caught, atomic_path(target):
        raise OSError(errno.ENOENT, "No such file or directory", "other")
    assert caught.value.filename == "other"
    with pytest.raises(OSError, match="^words$") as caught, atomic_path(target):
        raise OSError("words")
    assert caught.value.filename is None


def test_a_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old and longer")
    with target.open() as reader:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old and longer"
    assert target.read_text() == "new"
