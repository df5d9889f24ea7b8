"""Tests of tools/install_detectron2.py on a miniature source archive, without network."""

from __future__ import annotations

import importlib.util
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "install_detectron2.py"

SETUP = """\
setup(
    install_requires=["fvcore", "black==21.4b2"],
    ext_modules=get_extensions(),
)
"""
MODULE = """\
a = np.zeros(3, dtype=np.bool)
b = x.astype(np.float), np.int, np.object, np.str
c = np.bool_, np.int64, np.float32, np.int_, np.object_, np.str_, np.intp, np.integer
d = Image.LINEAR, Image.BILINEAR, Image.LINEAR_LIGHT
e = my.np.bool, jnp.float
"""
PATCHED_MODULE = """\
a = np.zeros(3, dtype=bool)
b = x.astype(float), int, object, str
c = np.bool_, np.int64, np.float32, np.int_, np.object_, np.str_, np.intp, np.integer
d = Image.BILINEAR, Image.BILINEAR, Image.LINEAR_LIGHT
e = my.np.bool, jnp.float
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module; tools/ is no package."""
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with the parts of Detectron2 0.6 that the script touches."""
    root = tmp_path / "pb1-detectron2-0.6"
    (root / "detectron2" / "utils").mkdir(parents=True)
    (root / "projects" / "P").mkdir(parents=True)
    (root / "setup.py").write_text(SETUP)
    (root / "detectron2" / "__init__.py").write_text("")
    (root / "detectron2" / "utils" / "visualizer.py").write_text(MODULE)
    (root / "projects" / "P" / "p.py").write_text(MODULE)
    return root


def archive_of(tree: Path) -> Path:
    """Packs a tree as a source archive beside it."""
    archive = tree.parent / f"{tree.name}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, tree.name)
    return archive


def snapshot(tree: Path) -> dict[str, str]:
    """The text of every file of a tree."""
    return {str(p.relative_to(tree)): p.read_text() for p in tree.rglob("*") if p.is_file()}


def test_patch_replaces_the_removed_aliases_and_nothing_else(
    script: ModuleType, tree: Path
) -> None:
    script.patch_tree(tree)
    assert (tree / "detectron2" / "utils" / "visualizer.py").read_text() == PATCHED_MODULE
    assert (tree / "projects" / "P" / "p.py").read_text() == PATCHED_MODULE


def test_patch_drops_extensions_and_loosens_black(script: ModuleType, tree: Path) -> None:
    script.patch_tree(tree)
    assert (tree / "setup.py").read_text() == SETUP.replace("get_extensions()", "[]").replace(
        "black==21.4b2", "black"
    )


def test_patch_twice_changes_nothing_more(script: ModuleType, tree: Path) -> None:
    script.patch_tree(tree)
    once = snapshot(tree)
    script.patch_tree(tree)
    assert snapshot(tree) == once


def test_patch_refuses_another_release(script: ModuleType, tree: Path) -> None:
    (tree / "setup.py").write_text("setup()")
    with pytest.raises(script.InstallError, match="ext_modules"):
        script.patch_tree(tree)


def test_patch_refuses_a_folder_that_is_no_source_tree(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.InstallError, match="not a Detectron2 source tree"):
        script.patch_tree(tmp_path)


def test_operators_stub_explains_itself_on_use(script: ModuleType, tree: Path) -> None:
    script.patch_tree(tree)
    spec = importlib.util.spec_from_file_location("_C", tree / "detectron2" / "_C.py")
    assert spec is not None and spec.loader is not None
    stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stub)
    with pytest.raises(AttributeError, match="without its compiled operators"):
        _ = stub.box_iou_rotated
    # collect_env calls these; default_setup calls collect_env
    assert "none" in stub.get_compiler_version()
    assert "none" in stub.get_cuda_version()


def test_wrong_hash_is_refused_before_any_code_runs(
    script: ModuleType,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[Sequence[str]] = []
    monkeypatch.setattr(script, "installed_detectron2", lambda: None)
    monkeypatch.setattr(script.install, "__defaults__", (None, calls.append))
    archive = archive_of(tree)
    assert script.main(["--archive", str(archive)]) == 2
    error = capsys.readouterr().err
    assert archive.name in error and "SHA-256" in error and error.count("\n") == 1
    assert calls == []


def test_missing_archive_is_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.InstallError, match="gone.tar.gz is not there"):
        script.install(tmp_path / "gone.tar.gz")


@pytest.mark.parametrize("found", ["detectron2 0.6", "pb1-detectron2 0.6", "the checkout /d2"])
def test_nothing_is_done_where_one_is_installed(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: str,
) -> None:
    monkeypatch.setattr(script, "installed_detectron2", lambda: found)
    monkeypatch.setattr(script, "install", lambda archive: pytest.fail("installed again"))
    assert script.main([]) == 0
    output = capsys.readouterr().out
    assert found in output and "nothing to do" in output and output.count("\n") == 1


@pytest.mark.parametrize(
    ("found", "installs"), [("pb1-detectron2 0.6", True), ("detectron2 0.6", False)]
)
def test_refresh_replaces_only_what_came_from_this_script(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, found: str, installs: bool
) -> None:
    calls: list[Path | None] = []
    monkeypatch.setattr(script, "installed_detectron2", lambda: found)
    monkeypatch.setattr(script, "install", calls.append)
    assert script.main(["--refresh"]) == 0
    assert bool(calls) is installs


def test_half_an_installation_does_not_count(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(package.parent)])
    monkeypatch.delitem(sys.modules, "detectron2", raising=False)
    assert script.installed_detectron2() is None
    metadata = package.parent / "pb1_detectron2-0.6.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pb1-detectron2\nVersion: 0.6\n"
    )
    assert script.installed_detectron2() == "pb1-detectron2 0.6"


def test_a_checkout_on_the_path_counts(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "detectron2", raising=False)
    assert script.installed_detectron2() == f"the checkout {package}"


def test_missing_torch_is_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    assert script.main([]) == 2
    error = capsys.readouterr().err
    assert "PyTorch is not installed" in error and error.count("\n") == 1


def test_install_fetches_verifies_patches_and_installs(
    script: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tree)
    expected = script.hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(script.verify_sha256, "__defaults__", (expected,))
    verbs: list[str] = []

    def pip(arguments: Sequence[str]) -> None:
        verbs.append(arguments[0])
        if arguments[0] == "download":
            pinned = Path(arguments[arguments.index("--requirement") + 1])
            assert script.ARCHIVE_SHA256 in pinned.read_text()
            assert "--require-hashes" in arguments
            folder = Path(arguments[arguments.index("--dest") + 1])
            (folder / archive.name).write_bytes(archive.read_bytes())
        else:
            source = Path(arguments[-1])
            assert "ext_modules=[]" in (source / "setup.py").read_text()
            assert (source / "detectron2" / "_C.py").is_file()

    script.install(None, pip)
    assert verbs == ["download", "install"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "nothing of it was run"),
        ("ERROR: Could not find a version", "Could not find a version"),
    ],
)
def test_a_failing_pip_gives_its_reason(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\necho '{output}' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(script.sys, "executable", str(fake))
    with pytest.raises(script.InstallError, match=message) as caught:
        script.run_pip(["download"])
    assert "\n" not in str(caught.value)
