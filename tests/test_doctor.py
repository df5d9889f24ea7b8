from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from parsing_fakes import write_tiny_model

from schnet import doctor, downloads
from schnet.command.main import main
from schnet.doctor import Finding, examine
from schnet.official_weights import OFFICIAL_WEIGHTS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of weights of its own."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def found(weights: str = "") -> dict[str, Finding]:
    """The findings by their subjects."""
    return {finding.subject: finding for finding in examine(weights)}


def test_a_whole_installation_needs_no_mending(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("python", "torch", "detectron2", "clip-anytorch", "devices", "bfloat16"):
        assert f"ok  {name}" in out, name
    assert str(cache) in out and "nothing is wrong" in out and "remedy" not in out


def test_a_missing_package_has_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "!!  segment-anything" in out and "remedy: pip install -e ." in out
    assert "1 to mend" in out


def test_a_missing_extra_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = (doctor.Package("nothing-of-the-kind", "nothing_of_the_kind", "pip", optional=True),)
    monkeypatch.setattr(doctor, "PACKAGES", packages)
    finding = found()["nothing-of-the-kind"]
    assert not finding.remedy and "not installed" in finding.found


def test_a_broken_package_is_told_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_one.py").write_text("raise ImportError('libGL.so.1:\\n no such file')")
    (tmp_path / "broken_two.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("broken_one", "broken_two")
    packages = tuple(doctor.Package(name, name, "mend it", optional=True) for name in names)
    monkeypatch.setattr(doctor, "PACKAGES", packages)
    findings = found()
    assert findings["broken_one"] == Finding(
        "broken_one", "broken: libGL.so.1: no such file", "mend it"
    )
    assert "not_there_at_all" in findings["broken_two"].found and findings["broken_two"].remedy
    assert "devices" in findings


def test_official_files_are_compared_with_their_digests() -> None:
    url = OFFICIAL_WEIGHTS["sam_vit_b"].url
    assert "none downloaded" in found()["official weights"].found
    path = downloads.cached_path(url)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not SAM")
    finding = found()["sam_vit_b"]
    assert "NOT as published" in finding.found and f"delete {path}" in finding.remedy


def test_an_official_file_that_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    file = OFFICIAL_WEIGHTS["sam_vit_b"]
    path = downloads.cached_path(file.url)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"as if it were")
    monkeypatch.setattr(downloads, "file_digest", lambda path, algorithm: file.sha256)
    assert not found()["sam_vit_b"].remedy


def test_weights_are_looked_at(tmp_path: Path) -> None:
    config, weights = write_tiny_model(tmp_path)
    config.rename(tmp_path / "config.yaml")
    finding = found(str(weights))[f"weights {weights}"]
    assert not finding.remedy and "20 classes, SAM tiny" in finding.found
    gone = str(tmp_path / "gone.pth")
    assert f"there is no file or folder {gone}" in found(gone)[f"weights {gone}"].remedy
    graph = tmp_path / "no.onnx"
    graph.write_bytes(b"no graph")
    assert "no model that onnxruntime can open" in found(str(graph))[f"weights {graph}"].remedy


@pytest.mark.parametrize("content", [b"garbage", None])
def test_damaged_weights_are_told(tmp_path: Path, content: bytes | None) -> None:
    config, weights = write_tiny_model(tmp_path)
    config.rename(tmp_path / "config.yaml")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2] if content is None else content)
    finding = found(str(weights))[f"weights {weights}"]
    assert finding.found == "cannot be used" and f"{weights}" in finding.remedy


def test_detectron2_without_its_compiled_part_is_no_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import detectron2

    monkeypatch.setitem(sys.modules, "detectron2._C", None)
    monkeypatch.delattr(detectron2, "_C", raising=False)
    finding = found()["detectron2's C++ part"]
    assert "left out" in finding.found and not finding.remedy


def test_a_fault_that_is_no_sentence_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Finding:
        raise OSError("libcudart.so: cannot open")

    monkeypatch.setattr(doctor, "_devices", fail)
    finding = found()["devices"]
    assert "libcudart" in finding.found and "pip install" in finding.remedy


def test_looking_imports_nothing_before_it_is_looked_at() -> None:
    heavy = ("torch", "cv2", "detectron2", "iopath")
    code = (
        "import sys, schnet.command.doctor; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPOSITORY / "projects" / "SCHNet"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
