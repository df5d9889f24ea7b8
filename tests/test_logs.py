"""The log: brief on the terminal, complete in the file, and no handler left behind."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schnet.logs import LOGGED_PACKAGES, start_logging, stop_logging


@pytest.fixture(autouse=True)
def _detached() -> Iterator[None]:
    """Leave the loggers to the other tests as they were."""
    yield
    stop_logging()


def test_file_has_all_levels_and_the_terminal_from_info_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_logging(tmp_path / "log.txt")
    logging.getLogger("schnet.somewhere").debug("a detail")
    logging.getLogger("schnet.somewhere").info("a fact")
    text = (tmp_path / "log.txt").read_text()
    assert "a detail" in text
    assert "a fact" in text
    shown = capsys.readouterr().out
    assert "a detail" not in shown
    assert shown.count("a fact") == 1


def test_second_start_leaves_the_first_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_logging(tmp_path / "one.txt")
    start_logging(tmp_path / "two.txt")
    logging.getLogger("detectron2").info("a fact")
    assert (tmp_path / "one.txt").read_text() == ""
    assert capsys.readouterr().out.count("a fact") == 1


def test_existing_log_is_continued(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("earlier\n")
    start_logging(tmp_path / "log.txt")
    logging.getLogger("schnet").info("later")
    assert (tmp_path / "log.txt").read_text().startswith("earlier\n")


def test_other_ranks_write_files_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_logging(tmp_path / "log.txt", rank=1)
    logging.getLogger("schnet").info("a fact")
    assert "a fact" in (tmp_path / "log.txt.rank1").read_text()
    assert capsys.readouterr().out == ""


def test_stopping_restores_propagation(tmp_path: Path) -> None:
    start_logging(tmp_path / "log.txt")
    stop_logging()
    for name in LOGGED_PACKAGES:
        assert not logging.getLogger(name).handlers
        assert logging.getLogger(name).propagate
        assert logging.getLogger(name).level == logging.NOTSET


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
def test_full_disk_costs_one_line_and_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = f"""
import logging
from schnet.logs import start_logging
start_logging({str(tmp_path / "log.txt")!r})
for number in range(5):
    logging.getLogger("schnet").info("fact %d", number)
logging.getLogger("schnet").info("a defect: %d", "no number")
"""
    (tmp_path / "log.txt").symlink_to("/dev/full")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert [f"fact {n}" in done.stdout for n in range(5)] == [True] * 5
    complaint, _, rest = done.stderr.partition("\n")
    assert complaint.startswith(f"the log {tmp_path / 'log.txt'} cannot be written (No space left")
    # What is wrong in our own code still shows, and nothing of the disk.
    assert "%d format" in rest and "OSError" not in rest and "No space" not in rest
