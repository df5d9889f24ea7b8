"""What ends a Ray job, or keeps it from starting, without a cluster: sentences and exit codes."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from parsing_fakes import load_script
from PIL import Image

from schnet.errors import InputError
from schnet.evaluation.argmax import NaNScoreError
from schnet.parsing import ByteArray, Parsing
from schnet.photo_parser import PhotoParser
from schnet.ray_pipeline.deaths import death_told, is_defect
from schnet.ray_pipeline.job import require_apart

TOOL = REPOSITORY / "tools" / "parse_with_ray.py"


class NaNParser(PhotoParser):
    """A model whose scores are no numbers."""

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        raise NaNScoreError


def nan_parser() -> PhotoParser:
    return NaNParser(("background",), ((0, 0, 0),))


def test_model_at_fault_is_told_in_rows() -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: make env-extras")
    from schnet.ray_pipeline.stages import ROW_SCHEMA, ParsePhotos

    empty = dict.fromkeys(ROW_SCHEMA.names)
    photo = {"number": 4, "id": "a.png", "height": 1, "width": 1, "data": b"123"}
    broken = {"number": 5, "id": "b.png", "error": "b.png cannot be read"}
    table = pa.Table.from_pylist([{**empty, **photo}, {**empty, **broken}], schema=ROW_SCHEMA)
    rows = ParsePhotos(nan_parser)(table).to_pylist()
    assert [row["number"] for row in rows] == [4, 5]
    assert {row["fatal"] for row in rows} == {str(NaNScoreError())}


class Death(Exception):
    """Looks like `ray.exceptions.ActorDiedError`."""

    def __init__(self, told: str, actor_init_failed: bool = False) -> None:
        super().__init__(told)
        self.actor_init_failed = actor_init_failed


def test_death_is_told_with_its_reason() -> None:
    first = "The actor died unexpectedly before finishing this task."
    known = "\tclass_name: MapWorker\n\tactor_id: 8a\n\tpid: 7"
    told = death_told(Death(f"{first}\n{known}\nThe node was\n  drained."))
    assert told.startswith("workers died again and again, most often for want of memory (Death: ")
    assert "(Death: The node was drained.): start again with --resume" in told
    never = (
        f"{first}\n{known}\nIts worker failed to start.\nThe actor never ran - it was cancelled."
    )
    told = death_told(Death(never))
    assert told.startswith("no actor could be started (Death: Its worker failed to start. The")
    assert "memory)" not in told and "8a" not in told
    failed = (
        "The actor died because of an error raised in its creation task, ray::X()\n  File 'a'\n"
    )
    told = death_told(Death(f"{failed}ModuleNotFoundError: No module named 'schnet'", True))
    assert "started (Death: ModuleNotFoundError: No module named 'schnet'): see that" in told
    assert not is_defect(Death(never)) and not is_defect(Death("ValueError: x"))
    assert not is_defect(Death(f"{failed}ModuleNotFoundError: No module named 'schnet'", True))
    assert not is_defect(Death(f"{failed}torch.OutOfMemoryError: CUDA out of memory.", True))
    assert is_defect(Death(f"{failed}RuntimeError: a defect", True))
    assert len(death_told(Death("very long " * 100))) < 500


@pytest.mark.parametrize("output", ["photos", "photos/parsed", "photos/.a/b", "link/parsed"])
def test_output_in_the_input_is_refused(tmp_path: Path, output: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: make env-extras")
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "link").symlink_to(photos)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(photos / "a.png")
    command = ["--input", str(photos), "--output", str(tmp_path / output), "--weights", "none"]
    with pytest.raises(InputError, match=f"--output .*{output} is --input .*photos or lies in it"):
        load_script("tools/parse_with_ray.py").main(command)
    assert [path.name for path in photos.iterdir()] == ["a.png"]


def test_output_beside_the_input_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").touch()
    (tmp_path / "photos").mkdir()
    require_apart(tmp_path / "photos", tmp_path / "photos2")
    require_apart(tmp_path / "photos", tmp_path)
    require_apart(tmp_path / "x.parquet", tmp_path / "parsed")


def test_defect_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", fail)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(TOOL), run_name="__main__")
    assert caught.value.code == 70
    told = capsys.readouterr().err
    assert "Traceback" in told and "ValueError: a defect" in told


class TestCluster:
    """How `ray.init` is called."""

    @pytest.fixture(autouse=True)
    def _ray(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ray = pytest.importorskip("ray", reason="Ray is not installed: make env-extras")
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.fault: Exception | None = None

        def init(address: str | None = None, **options: Any) -> None:
            self.calls.append((address, options))
            if self.fault is not None:
                raise self.fault

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def start(self, *arguments: Any) -> tuple[Any, dict[str, Any]]:
        from schnet.ray_pipeline.pipeline import cluster

        with cluster(*arguments):
            pass
        return self.calls[-1]

    @pytest.mark.parametrize("address", [None, "", "local"])
    def test_without_an_address_one_is_started(
        self, monkeypatch: pytest.MonkeyPatch, address: str | None
    ) -> None:
        # By None, Ray joins what /tmp/ray/ray_current_cluster names, or waits for it.
        given, options = self.start(address, None, 2)
        assert given == "local" and options["num_cpus"] == 2
        assert options["include_dashboard"] is False and "_temp_dir" not in options
        monkeypatch.setenv("RAY_ADDRESS", "")
        assert self.start(address)[0] == "local"

    def test_one_that_is_named_is_joined(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for given, options in (self.start("auto"), self.start("10.0.0.1:6379", Path("t"))):
            assert given in ("auto", "10.0.0.1:6379") and "num_cpus" not in options
            assert "_temp_dir" not in options
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
        given, options = self.start()
        assert given == "10.0.0.2:6379" and "num_cpus" not in options
        self.fault = ConnectionError("nobody there")
        with pytest.raises(InputError, match="no Ray cluster at 10.0.0.2:6379 .nobody there"):
            self.start()

    def test_relative_folder_for_logs(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.start(None, Path("t"))[1]["_temp_dir"] == str(tmp_path / "t")
        self.fault = OSError("AF_UNIX path length cannot exceed 107 bytes")
        with pytest.raises(InputError, match="--temp-dir t cannot be used .AF_UNIX path.*: give a"):
            self.start(None, Path("t"))
        with pytest.raises(OSError, match="AF_UNIX"):
            self.start()
