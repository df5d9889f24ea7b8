"""Checkpoint files: named and ordered, written whole or not at all, damage found by checksum."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from schnet import checkpoint_files
from schnet.checkpoint import write_checkpoint
from schnet.checkpoint_files import (
    DamagedFileError,
    checkpoint_name,
    choose_checkpoint,
    find_checkpoints,
    latest_checkpoint,
    periodic_checkpoints,
    read_checkpoint,
    whole_file,
)
from schnet.errors import InputError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.pth").touch()


def _write(folder: Path, name: str, iteration: int) -> None:
    torch.save({"iteration": iteration}, folder / f"{name}.pth")


def test_checkpoints_of_a_folder(tmp_path: Path) -> None:
    assert find_checkpoints(tmp_path / "nowhere") == []
    assert latest_checkpoint(tmp_path / "nowhere") is None
    _touch(tmp_path, "model_0000099", "model_init", "model_10000000", "model_best", "other")
    assert [path.stem for path in periodic_checkpoints(tmp_path)] == [
        *("model_init", "model_0000099", "model_10000000"),
    ]
    assert latest_checkpoint(tmp_path) == tmp_path / "model_10000000.pth"
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth\n")
    assert latest_checkpoint(tmp_path) == tmp_path / "model_0000099.pth"
    (tmp_path / "last_checkpoint").write_text("gone.pth")
    assert latest_checkpoint(tmp_path) == tmp_path / "model_10000000.pth"
    (tmp_path / "last_checkpoint").write_bytes(b"\xff\xfe")
    assert latest_checkpoint(tmp_path) == tmp_path / "model_10000000.pth"


def test_names_sort_by_iteration() -> None:
    assert checkpoint_name(-1) == "model_init"
    assert checkpoint_name(99) == "model_0000099"


@pytest.mark.parametrize(
    ("tag", "final", "order"),
    [
        ("model_final", 19, ["model_final", "model_0000014", "model_0000009", "model_init"]),
        # A finished run that was resumed with more iterations.
        ("model_0000014", 10, ["model_0000014", "model_final", "model_0000009", "model_init"]),
        ("model_0000009", 19, ["model_0000009", "model_final", "model_0000014", "model_init"]),
        ("model_0000014", 8, ["model_0000014", "model_0000009", "model_final", "model_init"]),
        (None, 10, ["model_0000014", "model_final", "model_0000009", "model_init"]),
        (None, 19, ["model_final", "model_0000014", "model_0000009", "model_init"]),
    ],
)
def test_older_ones_are_taken_in_order_where_newer_ones_are_damaged(
    tmp_path: Path, tag: str | None, final: int, order: list[str]
) -> None:
    iterations = {"model_init": -1, "model_0000009": 9, "model_0000014": 14, "model_final": final}
    for name, iteration in iterations.items():
        _write(tmp_path, name, iteration)
    _write(tmp_path, "model_best", 14)  # no run resumes from it
    if tag is not None:
        (tmp_path / "last_checkpoint").write_text(f"{tag}.pth")
    chosen = []
    for _ in order:
        chosen.append(choose_checkpoint(tmp_path).stem)
        path = tmp_path / f"{chosen[-1]}.pth"
        data = bytearray(path.read_bytes())
        data[data.index(b"iteration")] ^= 1
        path.write_bytes(bytes(data))
        if path.stem == "model_final":
            break  # its iteration is not known any more
    assert chosen == order[: len(chosen)]


def test_a_damaged_final_one_whose_iteration_is_unknown_is_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, "model_0000009", 9)
    (tmp_path / "model_final.pth").write_bytes(b"\0" * 50)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert choose_checkpoint(tmp_path).stem == "model_0000009"


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    """PyTorch alone loads other values for half of them."""
    path = tmp_path / "c.pth"
    content = {"model": {"a": torch.arange(40.0), "b": torch.ones(3)}, "iteration": 5}
    torch.save(content, path)
    whole = path.read_bytes()
    missed, found = [], 0
    for position in range(0, len(whole)):
        if position % 3 and whole[position] == 0:
            continue  # most of the padding
        data = bytearray(whole)
        data[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(data))
        try:
            loaded = read_checkpoint(path, "--resume")
        except DamagedFileError:
            found += 1
            continue
        same = loaded["iteration"] == 5 and all(
            torch.equal(loaded["model"][name], value) for name, value in content["model"].items()
        )
        missed += [] if same else [position]
    assert found > 300
    assert not missed


def test_an_entry_that_became_a_folder_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    torch.save({"a": torch.arange(40.0)}, path)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"data/0"))
    data[entry + 38] |= 0x10  # the DOS attribute of a folder
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedFileError, match="an entry has become a folder"):
        read_checkpoint(path, "--resume")


def test_what_cannot_be_opened_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--resume names .*cannot be opened") as caught:
        read_checkpoint(tmp_path / "gone.pth", "--resume")
    assert not isinstance(caught.value, DamagedFileError)


def _state(megabytes: int) -> dict[str, torch.Tensor]:
    return {f"p{i}": torch.full((250_000,), float(i)) for i in range(megabytes)}


def test_what_a_killed_run_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    stale = [tmp_path / f".{name}.tmp" for name in ("model_0000003.pth", "last_checkpoint")]
    for path in stale:
        path.write_bytes(b"half")
    (tmp_path / ".keep.me").touch()
    write_checkpoint(tmp_path / "model_0000007.pth", _state(1), {}, iteration=7)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".keep.me", "model_0000007.pth"]


def test_all_is_on_the_disk_before_and_after_the_file_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power finds the old file or the new one."""
    steps = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(handle: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{handle}"))
        size = target.stat().st_size if target.is_file() else 0
        steps.append((target.name, size > 1_000_000))
        fsync(handle)

    def record_replace(a: Path, b: Path) -> None:
        steps.append((b.name, True))
        replace(a, b)

    monkeypatch.setattr(checkpoint_files.os, "fsync", record_fsync)
    monkeypatch.setattr(checkpoint_files.os, "replace", record_replace)
    write_checkpoint(tmp_path / "c.pth", _state(2), {})
    assert steps == [(".c.pth.tmp", True), ("c.pth", True), (tmp_path.name, False)]


def test_other_errors_are_no_disks(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a defect"), whole_file(tmp_path / "f", "the file"):
        raise RuntimeError("a defect")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_one_error_and_no_checkpoint(small_disk: Path) -> None:
    target = small_disk / "model_0000001.pth"
    write_checkpoint(target, _state(2), {}, iteration=1)
    before = target.read_bytes()
    for name in ("model_0000001.pth", "model_0000003.pth"):
        with pytest.raises(InputError) as caught:
            write_checkpoint(small_disk / name, _state(3), {}, iteration=3)
        assert str(caught.value) == (
            f"the checkpoint {small_disk / name} cannot be written ({os.strerror(errno.ENOSPC)}): "
            "free space or correct OUTPUT_DIR, and continue with --resume"
        )
    assert [path.name for path in small_disk.iterdir()] == ["model_0000001.pth"]
    assert target.read_bytes() == before
    assert choose_checkpoint(small_disk) == target


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from schnet.checkpoint import write_checkpoint
from schnet.errors import exit_on_input_error
state = {f"p{i}": torch.ones(250_000) for i in range(4)}
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
with exit_on_input_error():
    write_checkpoint(Path(sys.argv[1]), state, {}, iteration=3)
"""


def test_a_limit_on_file_sizes_is_one_error_too(tmp_path: Path) -> None:
    target = tmp_path / "model_0000001.pth"
    write_checkpoint(target, _state(1), {}, iteration=1)
    before = target.read_bytes()
    command = [sys.executable, "-c", LIMITED, str(target)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2, finished.stderr
    told = finished.stderr.splitlines()[-1]
    assert told.startswith(f"error: the checkpoint {target} cannot be written (File too large)")
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
