"""What results were parsed with, so that no others join them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from schnet.batch import engines
from schnet.batch.engines import EngineOptions, class_list, identity_of
from schnet.batch.run_file import RunIdentity, check_run, write_run
from schnet.errors import InputError

FIRST = RunIdentity({"the engine": "onnx", "the weights": "12"})
SECOND = RunIdentity({"the engine": "onnx", "the weights": "34", "--remap": "atr"})


def test_results_of_another_model_are_refused_and_told_apart(tmp_path: Path) -> None:
    check_run(tmp_path / "missing", FIRST)
    write_run(tmp_path, FIRST, ("a", "b"), ((0, 0, 0), (1, 2, 3)))
    check_run(tmp_path, FIRST)
    with pytest.raises(InputError, match=r"\(--remap, the weights changed; .*--overwrite"):
        check_run(tmp_path, SECOND)
    check_run(tmp_path, SECOND, overwrite=True)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["classes"] == ["a", "b"] and content["palette"] == [[0, 0, 0], [1, 2, 3]]
    assert content["run"] == FIRST.id != SECOND.id


def test_the_order_of_the_parts_does_not_matter() -> None:
    assert RunIdentity(dict(reversed(SECOND.parts.items()))).id == SECOND.id


@pytest.mark.parametrize("name", ["results.jsonl", "run.json", ".schnet"])
def test_files_of_the_users_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} exists and was not written by this command"):
        check_run(tmp_path, FIRST, overwrite=True)


def test_the_model_is_known_by_its_content(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.onnx" for number in range(3)]
    for path, content in zip(paths, (b"one", b"one", b"two"), strict=True):
        path.write_bytes(content)
    first, same, other = (identity_of(EngineOptions(str(path))) for path in paths)
    assert first.id == same.id != other.id
    named = identity_of(EngineOptions(str(paths[0]), remap="atr"))
    own = tmp_path / "own.yaml"
    own.write_text("classes: [a]")
    filed = identity_of(EngineOptions(str(paths[0]), remap=str(own)))
    own.write_text("classes: [b]")
    changed = identity_of(EngineOptions(str(paths[0]), remap=str(own)))
    assert len({first.id, named.id, filed.id, changed.id}) == 4
    with pytest.raises(InputError, match=r"the exported model .*none\.onnx cannot be read"):
        identity_of(EngineOptions(str(tmp_path / "none.onnx")))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"device": "cuda"}, "--device"),
        ({"dtype": "float32"}, "--dtype"),
        ({"opts": ("A", "B")}, "--opts"),
        ({"config_files": ("a.yaml",)}, "--config-file"),
        ({"classes": class_list("a, b")}, "--classes"),
        ({"clip_weights": "clip.pt"}, "--clip-weights"),
    ],
)
def test_what_an_exported_file_cannot_do_is_refused(option: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told} is of --engine torch"):
        EngineOptions("model.onnx", **option).chosen()  # type: ignore[arg-type]


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(
        engines, "load_photo_parser", lambda *_, threads=None, **__: given.append(threads)
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for processes in ("", "1", "2", "16"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        engines.load_parser(EngineOptions("model.onnx"))
    assert given == [None, None, 4, 1]


def test_names_are_separated_by_commas() -> None:
    assert class_list("hat, left sleeve ,shoe=shoe|boot") == (
        "hat",
        "left sleeve",
        "shoe=shoe|boot",
    )
