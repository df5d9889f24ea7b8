"""A restart by torchrun or SLURM continues the run that the same launch began, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from schnet.errors import InputError
from schnet.restarts import LAUNCH_FILE, find_restart, note_launch

TORCHRUN = {"TORCHELASTIC_RUN_ID": "a1", "TORCHELASTIC_RESTART_COUNT": "0"}
SLURM = {"SLURM_JOB_ID": "77"}


@pytest.mark.parametrize(
    ("start", "again", "told"),
    [
        (TORCHRUN, {"TORCHELASTIC_RESTART_COUNT": "1"}, "TORCHELASTIC_RESTART_COUNT is 1"),
        (SLURM, {"SLURM_RESTART_COUNT": "2"}, "SLURM_RESTART_COUNT is 2"),
        (TORCHRUN, {}, ""),
        (SLURM, {}, ""),
        (TORCHRUN, {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_RUN_ID": "b2"}, ""),
        (SLURM, {"SLURM_RESTART_COUNT": "1", "SLURM_JOB_ID": "78"}, ""),
        ({**SLURM, **TORCHRUN}, {"SLURM_RESTART_COUNT": "1"}, "SLURM_RESTART_COUNT is 1"),
        ({}, {"TORCHELASTIC_RESTART_COUNT": "1"}, ""),
        ({**TORCHRUN, "TORCHELASTIC_RUN_ID": "none"}, {"TORCHELASTIC_RESTART_COUNT": "3"}, "is 3"),
    ],
)
def test_restart_of_the_same_launch_is_found(
    tmp_path: Path, start: dict[str, str], again: dict[str, str], told: str
) -> None:
    note_launch(tmp_path / "out", start)
    found = find_restart(tmp_path / "out", {**start, **again})
    assert told in found and bool(told) == bool(found)


def test_folder_of_another_run_is_not_continued(tmp_path: Path) -> None:
    assert find_restart(tmp_path, {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "1"}) == ""
    assert find_restart(tmp_path / "none", {**SLURM, "SLURM_RESTART_COUNT": "1"}) == ""


def test_launches_are_added_once_and_ordinary_ones_leave_no_file(tmp_path: Path) -> None:
    note_launch(tmp_path, {})
    assert not (tmp_path / LAUNCH_FILE).exists()
    for env in (TORCHRUN, SLURM, TORCHRUN):
        note_launch(tmp_path, env)
    assert (tmp_path / LAUNCH_FILE).read_text() == "torchrun a1\nslurm 77\n"


def test_count_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="SLURM_RESTART_COUNT is 'one'"):
        find_restart(tmp_path, {**SLURM, "SLURM_RESTART_COUNT": "one"})
