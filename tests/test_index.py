from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schnet.data.index import DatasetIndex, IndexRecord, read_index, write_index
from schnet.errors import InputError

INDEX = DatasetIndex(
    classes=("a", "b"),
    image_root="../photos",
    label_root="labels",
    pixel_counts=(5, 2**40),
    records=(IndexRecord("x/1.jpg", "1.png", 3, 4), IndexRecord("2 ü.jpg", "", 5, 6)),
    ignore_label=254,
)


def test_round_trip_resolves_roots(tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.json"
    write_index(path, INDEX)
    index = read_index(path)
    assert index.records == INDEX.records
    assert (index.classes, index.pixel_counts) == (INDEX.classes, INDEX.pixel_counts)
    assert index.ignore_label == 254
    assert Path(index.image_root).resolve() == tmp_path / "photos"
    assert index.label_root == str(tmp_path / "new" / "labels")
    assert [file.name for file in path.parent.iterdir()] == ["train.json"]


def test_absolute_root_stays(tmp_path: Path) -> None:
    root = str(tmp_path / "elsewhere")
    write_index(tmp_path / "i.json", DatasetIndex(("a",), root, root, (0,), ()))
    assert read_index(tmp_path / "i.json").image_root == root


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    write_index(path, INDEX)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_index(path, DatasetIndex((object(),), ".", ".", (0,), ()))  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no index file .*train\.json: run"):
        read_index(tmp_path / "train.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "coco"}', "\udcff"])
def test_other_content_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"train\.json"):
        read_index(path)


def without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != key}


@pytest.mark.parametrize("damage", ["no records", "short record", "short counts", "null root"])
def test_incomplete_index_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "train.json"
    write_index(path, INDEX)
    content = json.loads(path.read_text())
    damaged = {
        "no records": without(content, "records"),
        "short record": {**content, "records": [["1.jpg", "1.png", 3]]},
        "short counts": {**content, "pixel_counts": [1]},
        "null root": {**content, "image_root": None},
    }[damage]
    path.write_text(json.dumps(damaged))
    with pytest.raises(InputError, match=r"train\.json is incomplete"):
        read_index(path)
