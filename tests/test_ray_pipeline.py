"""The parts of the Ray pipeline that need no cluster: inputs, plans, commits, resuming, stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from parsing_fakes import fake_parser, half_bright, load_script
from permissions import locked_folder
from PIL import Image

from schnet.data.label_maps import decode_label
from schnet.errors import InputError
from schnet.photo_parser import PhotoParser
from schnet.ray_pipeline.collector import ShardCollector
from schnet.ray_pipeline.folder_input import FolderInput, read_folder_unit
from schnet.ray_pipeline.job import (
    Job,
    begin_or_resume,
    committed_shards,
    only_writer,
    shard_path,
    write_success,
)
from schnet.ray_pipeline.photo_source import InputFile, ReadUnit

JOB = Job("d1", ("background", "bright"), ((0, 0, 0), (9, 200, 7)), {"kind": "folder"}, 10, 4)
FILES = (InputFile("a.png", 1, 2), InputFile("b.png", 3, 4))


def whole(path: Path, rows: int) -> str:
    return ""


def begun(folder: Path, *shards: int) -> Path:
    """A folder whose job was begun, with empty files for some shards."""
    with only_writer(folder):
        begin_or_resume(folder, JOB, FILES)
    for shard in shards:
        shard_path(folder, shard).touch()
    return folder


def row(number: int, **known: Any) -> dict[str, Any]:
    names = ("id", "height", "width", "data", "areas", "error")
    return {**dict.fromkeys(names), "number": number, "id": str(number), **known}


def test_job_is_cut_into_shards() -> None:
    assert [JOB.stretch(shard) for shard in range(JOB.shards)] == [(0, 4), (4, 8), (8, 10)]
    assert JOB.missing([1]) == [(0, 4), (8, 10)]
    assert replace(JOB, photos=8).shards == 2


def test_folder_is_listed_and_read(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.webp", "b/.hidden.png", ".git/x.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    source = FolderInput(tmp_path)
    assert [file.name for file in source.files] == ["a.webp", "b/1.png", "b/2.JPG"]
    (unit,) = source.units([(1, 3)])
    unit = ReadUnit.loads(unit.dumps())
    (tmp_path / "b/1.png").unlink()
    gone, there = read_folder_unit(unit)
    assert (gone.number, gone.id, gone.data) == (1, "b/1.png", None)
    assert "b/1.png cannot be read" in gone.error
    assert (there.number, there.data, there.error) == (2, b"b/2.JPG", "")


def test_folder_units_are_small_and_cover_what_is_wanted(tmp_path: Path) -> None:
    for number in range(90):
        (tmp_path / f"{number:02d}.png").touch()
    units = list(FolderInput(tmp_path).units([(0, 40), (80, 90)]))
    assert [(unit.first, len(unit.names)) for unit in units] == [(0, 32), (32, 8), (80, 10)]


def test_failing_storage_is_not_a_bad_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(OSError, match="Input/output"):
        list(read_folder_unit(ReadUnit(0, str(tmp_path), ("a.png",))))


def test_a_folder_that_cannot_be_read_is_refused() -> None:
    with locked_folder("a.png") as folder, pytest.raises(InputError, match="locked cannot be read"):
        FolderInput(folder)


def test_empty_folder_and_odd_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no image"):
        FolderInput(tmp_path)
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png")).touch()
    with pytest.raises(InputError, match="is no Unicode"):
        FolderInput(tmp_path)


def test_resume_goes_on_with_the_same_job_alone(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out", 0)
    with pytest.raises(InputError, match="begun before: give --resume"):
        begin_or_resume(folder, JOB, FILES)
    assert begin_or_resume(folder, JOB, FILES, resume=True)
    for other, told in (
        (replace(JOB, model="d2"), r"another model \(digest d1, now d2\)"),
        (replace(JOB, rows_per_shard=5), "give --rows-per-shard 4"),
        (replace(JOB, source={"kind": "parquet"}), "with the input kind folder, not kind parquet"),
    ):
        with pytest.raises(InputError, match=told):
            begin_or_resume(folder, other, FILES, resume=True)


@pytest.mark.parametrize(
    "files, told",
    [
        ((FILES[0], replace(FILES[1], mtime_ns=5)), "b.png has been changed"),
        (FILES[:1], "b.png is gone"),
        (FILES[1:], "a.png is gone"),
        ((*FILES, InputFile("c.png", 1, 1)), "c.png is new"),
        ((InputFile("0.png", 1, 1), *FILES), "0.png is new"),
    ],
)
def test_resume_refuses_another_input(
    tmp_path: Path, files: tuple[InputFile, ...], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        begin_or_resume(begun(tmp_path / "out", 1), JOB, files, resume=True)


def test_job_without_a_shard_is_begun_anew(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out")
    assert not begin_or_resume(folder, replace(JOB, model="d2"), FILES[:1])
    assert json.loads((folder / "_job.json").read_text())["model"] == "d2"
    assert len((folder / "_inputs.jsonl").read_text().splitlines()) == 1


def test_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part-000000.parquet").write_text("mine")
    with pytest.raises(InputError, match="holds part-000000.parquet, which no job"):
        begin_or_resume(tmp_path, JOB, FILES, resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part-000000.parquet"]


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(InputError, match="another job is writing"):
        with only_writer(tmp_path):
            pass
    with only_writer(tmp_path):
        pass


def test_whole_shards_are_kept_and_others_made_again(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out", 0, 2)
    half = folder / ".part-000001.77.parquet"
    half.touch()
    asked = []

    def fault(path: Path, rows: int) -> str:
        asked.append((path.name, rows))
        return "broken" if path == shard_path(folder, 2) else ""

    assert committed_shards(folder, JOB, fault) == {0}
    assert asked == [("part-000000.parquet", 4), ("part-000002.parquet", 2)]
    assert not half.exists() and not shard_path(folder, 2).exists()
    shard_path(folder, 3).touch()
    with pytest.raises(InputError, match="part-000003.parquet is no shard"):
        committed_shards(folder, JOB, whole)


def test_success_names_every_shard(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"without the shards \[1\]"):
        write_success(tmp_path, JOB, {0: 0, 2: 0})
    assert not (tmp_path / "_SUCCESS").exists()
    write_success(tmp_path, JOB, {0: 0, 1: 3, 2: 1})
    said = json.loads((tmp_path / "_SUCCESS").read_text())
    assert (said["rows"], said["errors"], said["model"]) == (10, 4, "d1")
    assert said["shards"][2] == {"file": "part-000002.parquet", "rows": 2, "errors": 1}


def test_collector_counts_each_photo_once() -> None:
    collector = ShardCollector(JOB, done=[1])
    first = row(3)
    assert all(collector.add(row(number)) is None for number in (9, 3, 0, 3, 1, 5))
    assert collector.photos == 4 and sorted(collector.waiting) == [0, 2]
    assert collector.add(row(2)) == (0, [row(0), row(1), row(2), first])
    assert collector.add(row(2)) is None, "a committed shard is committed again"
    assert collector.add(row(8)) == (2, [row(8), row(9)])
    assert not collector.waiting


def test_command_line_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("tools/parse_with_ray.py")
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="ray and pyarrow cannot be imported: install them"):
        script.main(["--input", "x", "--output", "y", "--weights", "z"])


class TestTables:
    """What needs pyarrow, which comes with Ray."""

    @pytest.fixture(autouse=True)
    def _needs_pyarrow(self) -> None:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: make env-extras")

    def photos(self, folder: Path, columns: dict[str, list], **options: Any) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), folder / "x.parquet", **options)
        return folder

    def test_shard_is_written_and_judged(self, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        from schnet.ray_pipeline.tables import count_errors, shard_fault, write_shard

        good = row(8, height=1, width=2, data=b"png", areas=[1, 1])
        write_shard(tmp_path, JOB, 2, [good, row(9, error="bad")])
        path = shard_path(tmp_path, 2)
        table = pq.read_table(path)
        assert table.to_pylist()[0] == {
            **{"id": "8", "height": 1, "width": 2, "labels": b"png", "error": None},
            "areas": {"background": 1, "bright": 1},
        }
        known = json.loads(table.schema.metadata[b"schnet"])
        assert known["classes"] == ["background", "bright"] and known["model"] == "d1"
        assert known["palette"] == [[0, 0, 0], [9, 200, 7]]
        assert shard_fault(path, 2) == "" and count_errors(path) == 1
        assert "not 4" in shard_fault(path, 4)
        path.write_bytes(path.read_bytes()[:-9])
        assert shard_fault(path, 2)
        with pytest.raises(ValueError, match="1 rows of 2"):
            write_shard(tmp_path, JOB, 2, [good])

    def test_killed_between_writing_and_moving(self, tmp_path: Path) -> None:
        folder = begun(tmp_path / "out")
        code = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_ray_pipeline as t
from schnet.ray_pipeline import tables
os.replace = lambda *_: os.kill(os.getpid(), 9)
tables.write_shard(Path(sys.argv[1]), t.JOB, 0, [t.row(n, error="e") for n in range(4)])
"""
        arguments = [sys.executable, "-c", code, str(folder), str(REPOSITORY / "tests")]
        assert subprocess.run(arguments).returncode == -9
        assert len(list(folder.glob(".part-000000.*.parquet"))) == 1
        from schnet.ray_pipeline.tables import shard_fault

        assert not shard_path(folder, 0).exists()
        assert committed_shards(folder, JOB, shard_fault) == set()
        assert not list(folder.glob(".part-*"))

    def test_parquet_is_read_by_row_groups(self, tmp_path: Path) -> None:
        from schnet.ray_pipeline.parquet_input import ParquetInput, read_parquet_unit

        images = [b"%d" % n for n in range(50)]
        images[21] = None
        folder = self.photos(tmp_path, {"id": range(50), "image": images}, row_group_size=20)
        source = ParquetInput(folder)
        assert source.photos == 50
        units = [ReadUnit.loads(unit.dumps()) for unit in source.units([(2, 4), (18, 23)])]
        assert [unit.stretches for unit in units] == [((2, 4), (18, 20)), ((20, 23),)]
        read = [photo for unit in units for photo in read_parquet_unit(unit)]
        assert [photo.number for photo in read] == [2, 3, 18, 19, 20, 21, 22]
        assert [photo.data for photo in read] == [images[photo.number] for photo in read]
        assert [photo.id for photo in read if photo.error] == ["21"]

    def test_a_folder_that_cannot_be_read_is_refused(self) -> None:
        from schnet.ray_pipeline.parquet_input import first_parquet

        with locked_folder() as folder, pytest.raises(InputError, match="locked cannot be read"):
            first_parquet(folder)

    @pytest.mark.parametrize(
        "columns, told",
        [
            ({"id": ["a", "b", "a"], "image": [b"1"] * 3}, "1 ids are .* the first is 'a'"),
            ({"id": ["a", None], "image": [b"1"] * 2}, "1 rows without a value in 'id'"),
            ({"id": ["a"], "jpg": [b"1"]}, "no column 'image': give one of id, jpg as --image-c"),
            ({"id": ["a"], "image": ["text"]}, "'image' of .* holds string"),
            ({"id": [1.5], "image": [b"1"]}, "'id' of .* holds double"),
            ({"id": [], "image": []}, "'id' of .* holds null"),
        ],
    )
    def test_parquet_that_cannot_be_used(
        self, tmp_path: Path, columns: dict[str, list], told: str
    ) -> None:
        from schnet.ray_pipeline.parquet_input import ParquetInput

        with pytest.raises(InputError, match=told):
            ParquetInput(self.photos(tmp_path, columns))

    def test_stages_turn_photos_into_rows(self, tmp_path: Path) -> None:
        import pyarrow as pa

        from schnet.ray_pipeline.stages import EncodeLabels, ParsePhotos, read_photos

        for number in range(3):
            Image.fromarray(half_bright(4, 6 + number)).save(tmp_path / f"{number}.png")
        (tmp_path / "1.png").write_bytes(b"no image")
        units = FolderInput(tmp_path).units([(0, 3)])
        (table,) = read_photos(pa.table({"unit": [unit.dumps() for unit in units]}))
        rows = EncodeLabels(JOB.palette)(ParsePhotos(fake_parser)(table)).to_pylist()
        assert [(r["number"], r["id"]) for r in rows] == [(0, "0.png"), (1, "1.png"), (2, "2.png")]
        for found in (rows[0], rows[2]):
            expected = fake_parser()(tmp_path / found["id"])
            assert np.array_equal(decode_label(found["data"], "x"), expected.labels)
            assert found["areas"] == list(expected.areas().values())
            assert (found["height"], found["width"]) == expected.labels.shape
        assert "1.png cannot be read" in rows[1]["error"] and rows[1]["data"] is None

    def test_pixels_without_a_class_are_counted_nowhere(self) -> None:
        from schnet.ray_pipeline.stages import ROW_SCHEMA, EncodeLabels

        labels = np.array([[0, 255, 1], [255, 1, 1]], np.uint8)
        given = {**row(0, height=2, width=3, data=labels.tobytes()), "fatal": None}
        table = ROW_SCHEMA.empty_table().from_pylist([given], schema=ROW_SCHEMA)
        (found,) = EncodeLabels(JOB.palette)(table).to_pylist()
        assert found["areas"] == [1, 3]
        assert np.array_equal(decode_label(found["data"], "x"), labels)

    def test_tables_of_pixels_are_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import pyarrow as pa

        from schnet.ray_pipeline import stages

        monkeypatch.setattr(stages, "TABLE_BYTES", 150)
        for number in range(5):
            Image.fromarray(half_bright(4, 8)).save(tmp_path / f"{number}.png")
        units = [unit.dumps() for unit in FolderInput(tmp_path).units([(0, 5)])]
        sizes = [len(table) for table in stages.read_photos(pa.table({"unit": units}))]
        assert sizes == [2, 2, 1]

    def test_model_that_cannot_be_used_is_told_in_its_rows(self) -> None:
        from schnet.ray_pipeline.stages import ROW_SCHEMA, ParsePhotos

        def load() -> PhotoParser:
            raise InputError("no such model: give one")

        table = ROW_SCHEMA.empty_table().from_pylist([row(0, fatal=None)], schema=ROW_SCHEMA)
        (told,) = ParsePhotos(load)(table).to_pylist()
        assert told["fatal"] == "no such model: give one"
