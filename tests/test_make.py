"""Tests of the Makefile and tools/make_env.py, without network or a real installation."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("env", "env-extras", "quickstart", "test", "test-slow", "lint", "bench", "clean")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def make_env() -> ModuleType:
    """The script as a module; tools/ is no package."""
    spec = importlib.util.spec_from_file_location("make_env", ROOT / "tools" / "make_env.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path: Path, make_env: ModuleType) -> Path:
    """A folder with the Makefile, tools and dependency files of this repository."""
    root = tmp_path / "clone"
    (root / "tools").mkdir(parents=True)
    for name in (*make_env.DEPENDENCY_FILES, "Makefile", "tools/make_env.py"):
        shutil.copyfile(ROOT / name, root / name)
    return root


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs make in a folder, without what an outer make hands down."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def fake_environment(make_env: ModuleType, root: Path) -> None:
    """An environment that is complete as far as the stamp says."""
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    make_env.write_stamp(root / ".venv", make_env.fingerprint(root), "complete")


def record_steps(make_env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replaces running a step by noting its command; the environment then counts as working."""
    commands: list[list[str]] = []

    def run_step(label: str, command: list[str], log: Path, out: io.StringIO) -> None:
        commands.append(command)

    monkeypatch.setattr(make_env, "run_step", run_step)
    return commands


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_help_lists_every_target_with_a_line(arguments: tuple[str, ...]) -> None:
    result = make(ROOT, *arguments)
    assert result.returncode == 0
    listed = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert set(TARGETS) <= set(listed)
    assert all(len(text) > 10 for text in listed.values())


def test_stamp_is_by_content_and_not_by_time(make_env: ModuleType, clone: Path) -> None:
    assert not make_env.is_current(clone)
    fake_environment(make_env, clone)
    assert make_env.is_current(clone)
    os.utime(clone / "setup.cfg", (1, 1))
    assert make_env.is_current(clone)


@pytest.mark.parametrize(
    "name", ["requirements.txt", "setup.cfg", "pyproject.toml", "tools/install_detectron2.py"]
)
def test_stamp_notices_a_changed_dependency_file(
    make_env: ModuleType, clone: Path, name: str
) -> None:
    fake_environment(make_env, clone)
    with (clone / name).open("a") as handle:
        handle.write("\n# changed\n")
    assert not make_env.is_current(clone)


def test_stamp_notices_a_moved_clone_and_a_lost_python(make_env: ModuleType, clone: Path) -> None:
    fake_environment(make_env, clone)
    moved = clone.rename(clone.parent / "moved")
    assert not make_env.is_current(moved)
    moved.rename(clone)
    (clone / ".venv" / "bin" / "python").unlink()
    assert not make_env.is_current(clone)


def test_incomplete_environment_is_not_current(make_env: ModuleType, clone: Path) -> None:
    fake_environment(make_env, clone)
    # an update that was interrupted, then the change to the files taken back
    make_env.write_stamp(clone / ".venv", make_env.fingerprint(clone), "installing")
    assert not make_env.is_current(clone)


@pytest.mark.parametrize("text", ["", "[]", "{broken", '{"state": "complete"}'])
def test_unreadable_stamp_is_not_current(make_env: ModuleType, clone: Path, text: str) -> None:
    fake_environment(make_env, clone)
    (clone / ".venv" / ".stamp").write_text(text)
    assert not make_env.is_current(clone)


def test_make_env_reuses_a_current_environment(make_env: ModuleType, clone: Path) -> None:
    fake_environment(make_env, clone)
    result = make(clone, "env", f"PYTHON={sys.executable}")
    assert result.returncode == 0
    assert result.stdout == ".venv is up to date.\n"


def test_interrupted_installation_goes_on(
    make_env: ModuleType, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_environment(make_env, clone)
    commands = record_steps(make_env, monkeypatch)
    monkeypatch.setattr(make_env, "works", lambda venv: True)
    make_env.write_stamp(clone / ".venv", {}, "installing")
    half = clone / ".venv" / "lib" / "python3.11" / "site-packages" / "half-1.dist-info"
    half.mkdir(parents=True)
    make_env.make_env(clone, io.StringIO())
    assert not any("venv" in command[1:3] for command in commands)
    assert any("requirements.txt" in command[-1] for command in commands)
    assert commands[-1][-2:] == ["--editable", str(clone)]
    assert make_env.is_current(clone)
    assert not half.exists()


def test_failing_step_leaves_the_environment_incomplete(
    make_env: ModuleType, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_environment(make_env, clone)
    (clone / "requirements.txt").write_text("new")
    monkeypatch.setattr(make_env, "works", lambda venv: True)

    def run_step(label: str, command: list[str], log: Path, out: io.StringIO) -> None:
        raise make_env.EnvError("pip fails")

    monkeypatch.setattr(make_env, "run_step", run_step)
    with pytest.raises(make_env.EnvError, match="pip fails"):
        make_env.make_env(clone, io.StringIO())
    assert not make_env.is_current(clone)


def test_changed_patch_refreshes_detectron2(
    make_env: ModuleType, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_environment(make_env, clone)
    commands = record_steps(make_env, monkeypatch)
    monkeypatch.setattr(make_env, "works", lambda venv: True)
    for name, refreshed in (("requirements.txt", False), ("tools/install_detectron2.py", True)):
        with (clone / name).open("a") as handle:
            handle.write("\n# changed\n")
        commands.clear()
        make_env.make_env(clone, io.StringIO())
        assert any("--refresh" in command for command in commands) is refreshed


def test_interrupted_creation_is_cleared_and_begun_anew(
    make_env: ModuleType, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_environment(make_env, clone)  # its Python has pip: it looks as if it worked
    (clone / ".venv" / "lib").mkdir()
    make_env.write_stamp(clone / ".venv", {}, "creating")
    monkeypatch.setattr(make_env, "check_disk", lambda folder: None)
    commands = record_steps(make_env, monkeypatch)
    make_env.make_env(clone, io.StringIO())
    assert commands[0][1:] == ["-m", "venv", str(clone / ".venv")]
    assert not (clone / ".venv" / "lib").exists()


def test_half_installed_package_is_installed_anew(make_env: ModuleType, tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, files in (
        ("whole-1.dist-info", ("METADATA", "INSTALLER", "RECORD")),
        ("half-1.dist-info", ("METADATA", "RECORD")),
        ("quarter-1.dist-info", ("METADATA",)),
    ):
        (packages / name).mkdir(parents=True)
        for file in files:
            (packages / name / file).touch()
    make_env.drop_partial_packages(tmp_path)
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]


def test_foreign_folder_is_left_alone(make_env: ModuleType, clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / "thesis.txt").write_text("mine")
    with pytest.raises(make_env.EnvError, match="not made by `make env`: move it away"):
        make_env.make_env(clone, io.StringIO())
    assert (clone / ".venv" / "thesis.txt").read_text() == "mine"
    assert len(list((clone / ".venv").iterdir())) == 1


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13)])
def test_old_python_is_told_what_to_do(make_env: ModuleType, version: tuple[int, ...]) -> None:
    with pytest.raises(make_env.EnvError, match=r"is too old.*3\.11.*make env PYTHON=") as caught:
        make_env.check_python(version, "/usr/bin/python3")
    assert "\n" not in str(caught.value) and ".".join(map(str, version)) in str(caught.value)


def test_new_enough_python_passes(make_env: ModuleType) -> None:
    make_env.check_python((3, 11, 0), "python3")
    make_env.check_python((3, 13, 1), "python3")


def test_script_parses_with_an_old_python() -> None:
    source = (ROOT / "tools" / "make_env.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))  # the oldest that ast knows
    assert "from __future__ import annotations" not in source  # 3.6 does not have it


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_missing_venv_module_names_the_package(make_env: ModuleType, missing: str) -> None:
    with pytest.raises(make_env.EnvError, match=f"no module {missing}: .*-venv"):
        make_env.check_venv_module(lambda name: None if name == missing else name)


def test_full_disk_says_how_much_is_needed(make_env: ModuleType, tmp_path: Path) -> None:
    make_env.check_disk(tmp_path, lambda folder: Usage(0, 0, 50e9))
    with pytest.raises(make_env.EnvError, match=r"has 1\.5 GB free .* needs 10: free some space"):
        make_env.check_disk(tmp_path, lambda folder: Usage(0, 0, 1.5e9))


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("ERROR: [Errno 28] No space left on device", "disk became full: free 10 GB"),
        ("NewConnectionError('...'): Max retries exceeded", "check the network"),
        (
            "ERROR: No matching distribution found for torch==9",
            "found for torch==9: check the network, pip's",
        ),
        ("x\ninstall_detectron2: another SHA-256", "another SHA-256"),
        ("", "install.log"),
    ],
)
def test_failing_step_prints_its_end_and_one_line_of_remedy(
    make_env: ModuleType, tmp_path: Path, output: str, remedy: str
) -> None:
    out = io.StringIO()
    code = f"print('noise ' * 3); print({output!r}); raise SystemExit(1)"
    log = tmp_path / "install.log"
    with pytest.raises(make_env.EnvError) as caught:
        make_env.run_step("[1/2] pip", [sys.executable, "-c", code], log, out)
    message = str(caught.value)
    assert remedy in message and "\n" not in message and "run `make env` again" in message
    assert "noise" in out.getvalue() and "noise" in log.read_text()


def test_clean_keeps_what_users_made(clone: Path) -> None:
    ours = (".venv/bin", "output/quickstart", "datasets/dolls/images")
    theirs = ("output/ccp", "datasets/LIP")
    for name in ours + theirs:
        (clone / name).mkdir(parents=True)
        (clone / name / "file").write_text("x")
    (clone / "datasets" / "dolls" / "paper_dolls.json").touch()  # the renderer's mark
    (clone / "projects" / "a" / "__pycache__").mkdir(parents=True)
    (clone / "tests").mkdir()
    result = make(clone, "clean")
    assert result.returncode == 0, result.stderr
    assert "removing .venv" in result.stdout and "removing datasets/dolls" in result.stdout
    assert not any((clone / name).exists() for name in ours)
    assert all((clone / name / "file").exists() for name in theirs)
    assert not (clone / "projects" / "a" / "__pycache__").exists()


def test_clean_keeps_dolls_that_were_not_rendered(clone: Path) -> None:
    (clone / "datasets" / "dolls").mkdir(parents=True)
    (clone / "datasets" / "dolls" / "photo.jpg").write_text("mine")
    result = make(clone, "clean")
    assert "keeping datasets/dolls" in result.stdout
    assert (clone / "datasets" / "dolls" / "photo.jpg").exists()


def test_ci_runs_lint_and_test_and_stops_at_a_failure(clone: Path) -> None:
    (clone / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci" / "run")
    (clone / "Makefile").write_text("lint:\n\t@echo linted; exit $(LINT)\ntest:\n\t@echo tested\n")
    for lint, expected in (("0", "linted\ntested\n"), ("1", "linted\n")):
        result = subprocess.run(
            ["bash", str(clone / ".ci" / "run")],
            env={**os.environ, "LINT": lint, "MAKEFLAGS": "--no-print-directory"},
            capture_output=True,
            text=True,
        )
        assert result.stdout == expected
        assert (result.returncode == 0) is (lint == "0")
