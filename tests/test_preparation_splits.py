"""Whole splits: which files pair up, what is done again, when it stops, what the index says."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data_helpers import patchwork, save_image
from official_trees import SIZE, plant_damage, plant_traps, write_pair, zip_tree

from schnet.data.index import read_index
from schnet.data.label_maps import decode_label, read_label
from schnet.data.preparation.pairs import PairResult, PairStatus
from schnet.data.preparation.sources import SourceFile, open_source
from schnet.data.preparation.splits import (
    PreparedSplit,
    SplitFiles,
    index_split,
    pair_files,
    prepare_split,
    problems,
    refuse_too_many_problems,
)
from schnet.data.reading import UInt8Array
from schnet.data.specs import SPECS
from schnet.errors import InputError

LIP = SPECS["lip"]


def split_files(source: Path, ids: tuple[str, ...] | None = None) -> SplitFiles:
    tree = open_source([source])
    images, labels = tree.find_folder(["images"]), tree.find_folder(["labels"])
    assert images is not None
    return SplitFiles(images, labels, ids)


def run(source: Path, target: Path, jobs: int = 1) -> PreparedSplit:
    return prepare_split(LIP, "train", split_files(source), target, jobs=jobs)


def statuses(prepared: PreparedSplit) -> dict[str, int]:
    found = [result.status.name for result in prepared.results]
    return {name: found.count(name) for name in sorted(set(found))}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of seven sound pairs."""
    plant_traps(tmp_path / "source" / "images", tmp_path / "source" / "labels")
    return tmp_path / "source"


def test_pairs_follow_the_id_list(source: Path) -> None:
    tasks = pair_files(split_files(source, ("turned", "nobody", "cmyk")))
    assert [task.image_id for task in tasks] == ["turned", "nobody", "cmyk"]
    assert tasks[1].image is None and tasks[1].label is None


def test_one_name_with_two_endings_is_refused(source: Path) -> None:
    save_image(source / "images" / "cmyk.PNG", patchwork(SIZE))
    with pytest.raises(
        InputError, match=r"images holds cmyk\.PNG and cmyk\.jpg, which have one name"
    ):
        pair_files(split_files(source))


def test_second_run_checks_only_what_changed(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert statuses(run(source, tmp_path / "out")) == {"CHECKED": 7}
    capsys.readouterr()
    assert statuses(run(source, tmp_path / "out")) == {"UNCHANGED": 7}
    # The bar begins where the earlier run ended.
    assert "0/7" not in capsys.readouterr().err
    write_pair(source / "images", source / "labels", "new", seed=1)
    save_image(source / "labels" / "cmyk.png", patchwork(SIZE))
    again = run(source, tmp_path / "out")
    assert statuses(again) == {"CHECKED": 2, "UNCHANGED": 6}
    fresh = run(source, tmp_path / "other")
    assert [r.record for r in again.results] == [r.record for r in fresh.results]
    assert [r.pixel_counts for r in again.results] == [r.pixel_counts for r in fresh.results]


def test_faults_are_told_again_and_gone_when_mended(source: Path, tmp_path: Path) -> None:
    told = plant_damage(source / "images", source / "labels")
    found = run(source, tmp_path / "out")
    first = problems(found.results)
    assert len(first) == len(told)
    again = run(source, tmp_path / "out")
    assert problems(again.results) == first
    expected = {**statuses(found), "UNCHANGED": 7}
    del expected["CHECKED"]
    assert statuses(again) == expected
    write_pair(source / "images", source / "labels", "range", seed=1)
    assert len(problems(run(source, tmp_path / "out").results)) == len(first) - 1


def test_interrupted_run_goes_on(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    journal = tmp_path / "out" / ".train.journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]) + lines[4][:30])
    assert statuses(run(source, tmp_path / "out")) == {"CHECKED": 4, "UNCHANGED": 3}
    assert statuses(run(source, tmp_path / "out")) == {"UNCHANGED": 7}


@pytest.mark.parametrize("content", ["", "no json\n", '{"format": "other"}\n'])
def test_foreign_journal_is_no_hindrance(source: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".train.journal.jsonl").write_text(content)
    assert statuses(run(source, tmp_path / "out")) == {"CHECKED": 7}


def test_other_labels_forget_the_journal(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    files = split_files(source)
    other = prepare_split(SPECS["cihp"], "train", files, tmp_path / "out", jobs=1)
    assert statuses(other) == {"CHECKED": 7}
    ignores = replace(SPECS["cihp"], ignore_label=254)
    other = prepare_split(ignores, "train", files, tmp_path / "out", jobs=1)
    assert statuses(other) == {"CHECKED": 6, "VALUES": 1}
    index_split(ignores, other, tmp_path / "out" / "train.json")
    assert read_index(tmp_path / "out" / "train.json").ignore_label == 254


def test_other_conversions_and_places_forget_the_journal(source: Path, tmp_path: Path) -> None:
    files = split_files(source)

    def convert(places: SplitFiles, *settings: str) -> dict[str, int]:
        return statuses(
            prepare_split(
                LIP,
                "train",
                places,
                tmp_path / "out",
                jobs=1,
                convert=decode_label,
                settings=settings,
            )
        )

    assert convert(files, "a") == {"CHECKED": 7}
    assert convert(files, "a") == {"UNCHANGED": 7}
    assert convert(files, "b") == {"CHECKED": 7}
    assert convert(replace(files, written_labels="elsewhere"), "b") == {"CHECKED": 7}
    assert (tmp_path / "out" / "elsewhere" / "cmyk.png").is_file()


def test_splits_have_journals_of_their_own(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    files = split_files(source, ("cmyk",))
    other = prepare_split(SPECS["cihp"], "val", files, tmp_path / "out", jobs=1)
    assert statuses(other) == {"CHECKED": 1}
    assert statuses(run(source, tmp_path / "out")) == {"UNCHANGED": 7}


def test_lost_copy_is_written_again(source: Path, tmp_path: Path) -> None:
    archive = zip_tree(source, tmp_path / "a.zip")
    run(archive, tmp_path / "out")
    copy = tmp_path / "out" / "labels" / "cmyk.png"
    copy.unlink()
    assert statuses(run(archive, tmp_path / "out")) == {"CHECKED": 1, "UNCHANGED": 6}
    assert copy.read_bytes() == (source / "labels" / "cmyk.png").read_bytes()


def test_edited_copy_is_not_replaced(source: Path, tmp_path: Path) -> None:
    archive = zip_tree(source, tmp_path / "a.zip")
    run(archive, tmp_path / "out")
    copy = tmp_path / "out" / "labels" / "cmyk.png"
    edited = save_image(copy, patchwork(SIZE, seed=77)).read_bytes()
    with pytest.raises(InputError, match=r"labels/cmyk\.png is not what .* move it away"):
        run(archive, tmp_path / "out")
    assert copy.read_bytes() == edited


def test_copies_of_a_run_that_left_no_note_are_taken(source: Path, tmp_path: Path) -> None:
    archive = zip_tree(source, tmp_path / "a.zip")
    run(archive, tmp_path / "out")
    (tmp_path / "out" / ".train.journal.jsonl").unlink()
    assert statuses(run(archive, tmp_path / "out")) == {"CHECKED": 7}


def test_own_label_maps_are_converted_again_and_edited_ones_kept(
    source: Path, tmp_path: Path
) -> None:
    def convert(data: bytes, path: str, value: int) -> UInt8Array:
        return np.full(SIZE, value, np.uint8)

    def run_with(value: int) -> None:
        prepare_split(
            LIP,
            "train",
            split_files(source),
            tmp_path / "out",
            jobs=1,
            convert=partial(convert, value=value),
            settings=[str(value)],
        )

    written = tmp_path / "out" / "labels" / "cmyk.png"
    for value in (3, 5):
        run_with(value)
        assert (read_label(written, 20) == value).all()
    save_image(written, np.full(SIZE, 9, np.uint8))
    with pytest.raises(InputError, match=r"labels/cmyk\.png is not what"):
        run_with(5)
    assert (read_label(written, 20) == 9).all()


def test_unreadable_file_is_tried_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: SourceFile, kind: str) -> bytes:
        raise InputError(f"the {kind} {file.path} cannot be read (Permission denied)")

    with monkeypatch.context() as patch:
        patch.setattr(SourceFile, "read", refuse)
        assert statuses(run(source, tmp_path / "out")) == {"UNREADABLE": 7}
    assert statuses(run(source, tmp_path / "out")) == {"CHECKED": 7}


def test_processes_change_nothing(source: Path, tmp_path: Path) -> None:
    for number in range(12):
        write_pair(source / "images", source / "labels", f"n{number}", seed=number)
    plant_damage(source / "images", source / "labels")
    assert run(source, tmp_path / "a").results == run(source, tmp_path / "b", jobs=2).results


def test_index_of_a_folder_points_there(source: Path, tmp_path: Path) -> None:
    plant_damage(source / "images", source / "labels")
    prepared = run(source, tmp_path / "out")
    index_split(LIP, prepared, tmp_path / "out" / "train.json")
    index = read_index(tmp_path / "out" / "train.json")
    assert (index.image_root, index.label_root) == (f"{source}/images", f"{source}/labels")
    assert len(index.records) == 7 and index.classes == LIP.classes
    assert sum(index.pixel_counts) == 7 * SIZE[0] * SIZE[1] - 3 * SIZE[1]


def test_index_of_a_zip_is_relative(source: Path, tmp_path: Path) -> None:
    prepared = run(zip_tree(source, tmp_path / "a.zip"), tmp_path / "out")
    index_split(LIP, prepared, tmp_path / "out" / "train.json")
    roots = json.loads((tmp_path / "out" / "train.json").read_text())
    assert (roots["image_root"], roots["label_root"]) == ("images", "labels")
    index = read_index(tmp_path / "out" / "train.json")
    assert all(Path(index.image_root, record.image).is_file() for record in index.records)
    assert all(Path(index.label_root, record.label).is_file() for record in index.records)


def test_too_much_damage_stops(source: Path, tmp_path: Path) -> None:
    plant_damage(source / "images", source / "labels")
    results = run(source, tmp_path / "out").results
    refuse_too_many_problems({"train": results}, 0.5)
    with pytest.raises(InputError, match=r"6 of 13 pairs cannot be used, more than 46%.*cut\.jpg"):
        refuse_too_many_problems({"train": results}, 6 / 13 - 0.001)
    with pytest.raises(InputError) as caught:
        refuse_too_many_problems({"train": results * 2}, 0.1)
    assert str(caught.value).count("; ") == 9, "ten sentences are enough"
    # The share itself is allowed.
    refuse_too_many_problems({"train": results}, 6 / 13)


def test_split_without_a_pair_stops_however_small_it_is(source: Path, tmp_path: Path) -> None:
    plant_damage(source / "images", source / "labels")
    results = run(source, tmp_path / "out").results
    bad = [result for result in results if result.status is PairStatus.MISSING]
    told = "none of the 2 pairs of the split val can be used.*the label map of"
    with pytest.raises(InputError, match=told):
        refuse_too_many_problems({"train": results * 9, "val": bad}, 1.0)
    dropped = [PairResult(PairStatus.DROPPED)]
    with pytest.raises(InputError, match="the 1 pairs of the split val.*no image that shows a p"):
        refuse_too_many_problems({"train": results, "val": dropped}, 1.0)
    with pytest.raises(InputError, match="none of the 0 pairs of the split val"):
        refuse_too_many_problems({"train": results, "val": []}, 1.0)
