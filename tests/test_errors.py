"""How a command line ends: bad input and full disks in one line, defects as they are."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from schnet.errors import InputError, exit_by_kind_of_error, exit_on_input_error, storage_error

STORAGE = [
    (errno.ENOSPC, "free space or choose another folder"),
    (errno.EDQUOT, "free space or choose another folder"),
    (errno.EROFS, "make it writable or choose another folder"),
    (errno.EACCES, "allow access to it or choose another folder"),
]


def _told(capsys: pytest.CaptureFixture[str], error: BaseException) -> str:
    """What the command line says about an error, after checking its exit code."""
    with pytest.raises(SystemExit) as caught, exit_on_input_error():
        raise error
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_bad_input_is_one_line_and_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    told = _told(capsys, InputError("a.jpg is no image: replace it"))
    assert told == "error: a.jpg is no image: replace it\n"


@pytest.mark.parametrize(("code", "remedy"), STORAGE)
def test_storage_trouble_is_one_line_with_file_reason_and_remedy(
    capsys: pytest.CaptureFixture[str], code: int, remedy: str
) -> None:
    told = _told(capsys, OSError(code, os.strerror(code), "out/0001.png"))
    reason = os.strerror(code)
    assert told == f"error: out/0001.png cannot be read or written ({reason}): {remedy}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
def test_full_disk_is_told_where_the_write_does_not_name_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught, exit_on_input_error():
        Path("/dev/full").write_text("pixels")
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: a file cannot be read or written (No space left on device): ")


def test_interrupt_is_one_line_and_the_code_of_shells(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, exit_on_input_error():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_names_in_bytes_are_shown_as_text() -> None:
    told = storage_error(PermissionError(errno.EACCES, "Permission denied", b"out/a.png"))
    assert told is not None and str(told).startswith("out/a.png cannot")


@pytest.mark.parametrize(
    "defect",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
        OSError("without a number"),
        ValueError(28),
    ],
)
def test_defects_pass_as_they_are(defect: BaseException) -> None:
    assert storage_error(defect) is None
    with pytest.raises(type(defect)) as caught, exit_on_input_error():
        raise defect
    assert caught.value is defect


@pytest.mark.parametrize(
    "error, code, told",
    [
        (ValueError("a defect"), 70, "ValueError: a defect"),
        (InputError("a.jpg is no image"), 2, "error: a.jpg is no image"),
        (OSError(errno.ENOSPC, "full", "a"), 2, "error: a cannot be read or written (full)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(1), 1, ""),
    ],
)
def test_exit_code_by_kind_of_error(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, told: str
) -> None:
    with pytest.raises(SystemExit) as caught, exit_by_kind_of_error():
        raise error
    assert caught.value.code == code
    err = capsys.readouterr().err
    assert told in err and ("Traceback" in err) == (code == 70)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
def test_full_standard_output_does_not_hide_the_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = open("/dev/full", "w", encoding="utf-8")
    full.write("a table")
    monkeypatch.setattr(sys, "stdout", full)
    try:
        assert _told(capsys, InputError("a.jpg is no image")) == "error: a.jpg is no image\n"
    finally:
        monkeypatch.undo()
        with pytest.raises(OSError):
            full.close()


def test_of_torchruns_processes_one_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("schnet.errors.time.sleep", waited.append)
    for env in ({}, {"LOCAL_RANK": "3"}, {"TORCHELASTIC_RUN_ID": "a", "LOCAL_RANK": "0"}):
        for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit), exit_on_input_error():
            raise InputError("a.jpg is no image: replace it")
    assert sum(waited) == 0
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SystemExit), exit_on_input_error():
        raise InputError("a.jpg is no image: replace it")
    assert waited[-1] > 1
