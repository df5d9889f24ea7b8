"""One image and its label map: what is checked, counted and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import save_image
from official_trees import SIZE, plant_damage, plant_traps, zip_tree

from schnet.data.label_maps import decode_label, read_label
from schnet.data.labels import LIP_PALETTE
from schnet.data.preparation.pairs import (
    OutputFile,
    PairResult,
    PairRules,
    PairStatus,
    PairTask,
    check_pair,
    count_labels,
)
from schnet.data.preparation.sources import SourceTree, open_source
from schnet.data.preparation.splits import SplitFiles, pair_files
from schnet.data.reading import UInt8Array

RULES = PairRules(20, LIP_PALETTE)


def tasks_of(tree: SourceTree, ids: tuple[str, ...] | None = None) -> dict[str, PairTask]:
    images, labels = tree.find_folder(["images"]), tree.find_folder(["labels"])
    assert images is not None
    return {task.image_id: task for task in pair_files(SplitFiles(images, labels, ids))}


def test_traps_are_read_as_they_are_meant(tmp_path: Path) -> None:
    truth = plant_traps(tmp_path / "images", tmp_path / "labels")
    tasks = tasks_of(open_source([tmp_path]))
    assert set(tasks) == set(truth)
    for name, labels in truth.items():
        result = check_pair(tasks[name], RULES)
        assert (result.status, result.problem) == (PairStatus.CHECKED, ""), name
        assert result.pixel_counts == tuple(np.bincount(labels.ravel(), minlength=20)[:20]), name
        assert result.record is not None
        assert (result.record.height, result.record.width) == SIZE, name
        assert result.turned == (name == "turned")
        assert result.ignored == (3 * SIZE[1] if name == "ignored" else 0)
    modes = {name: check_pair(tasks[name], RULES).mode for name in ("grey_photo", "cmyk", "turned")}
    assert modes == {"grey_photo": "L", "cmyk": "CMYK", "turned": "RGB"}


def test_damage_is_named_and_told_apart(tmp_path: Path) -> None:
    expected = plant_damage(tmp_path / "images", tmp_path / "labels")
    tasks = tasks_of(open_source([tmp_path]))
    results = {name: check_pair(task, RULES) for name, task in tasks.items()}
    for name, told in expected.items():
        problem = results[name.partition(".")[0]].problem
        assert name in problem or name.startswith("no_"), name
        assert told in problem and "\n" not in problem, name
    assert {name: result.status for name, result in results.items()} == {
        "cut": PairStatus.UNREADABLE,
        "small": PairStatus.MISMATCH,
        "range": PairStatus.VALUES,
        "no_label": PairStatus.MISSING,
        "text": PairStatus.UNREADABLE,
        "no_photo": PairStatus.MISSING,
    }
    assert all(result.record is None for result in results.values())
    assert f"(looked for in {tmp_path}/labels)" in results["no_label"].problem
    assert f"(looked for in {tmp_path}/images)" in results["no_photo"].problem
    assert {results[name].mode for name in ("small", "range")} == {"RGB"}
    without = {name for name, result in results.items() if not result.has_label}
    assert without == {"no_label"}


def test_id_without_any_file_is_missing(tmp_path: Path) -> None:
    plant_traps(tmp_path / "images", tmp_path / "labels")
    result = check_pair(tasks_of(open_source([tmp_path]), ("nobody",))["nobody"], RULES)
    assert result.status is PairStatus.MISSING
    assert f"the image nobody is missing (looked for in {tmp_path}/images)" in result.problem


def test_nothing_is_written_for_files_that_may_stay(tmp_path: Path) -> None:
    plant_traps(tmp_path / "images", tmp_path / "labels")
    task = tasks_of(open_source([tmp_path]))["turned"]
    result = check_pair(task, PairRules(20, LIP_PALETTE, target=tmp_path / "out"))
    assert result.outputs == () and not (tmp_path / "out").exists()


def test_zipped_pairs_are_copied_byte_for_byte(tmp_path: Path) -> None:
    plant_traps(tmp_path / "tree" / "images", tmp_path / "tree" / "labels")
    task = tasks_of(open_source([zip_tree(tmp_path / "tree", tmp_path / "a.zip")]))["rgb_label"]
    rules = PairRules(20, LIP_PALETTE, target=tmp_path / "out", image_folder="i", label_folder="l")
    result = check_pair(task, rules)
    assert [output.name for output in result.outputs] == ["i/rgb_label.jpg", "l/rgb_label.png"]
    for output, original in zip(result.outputs, ("images", "labels"), strict=True):
        copied = tmp_path / "out" / output.name
        assert copied.read_bytes() == (tmp_path / "tree" / original / copied.name).read_bytes()
        assert output.is_intact(tmp_path / "out")
        copied.write_bytes(b"other")
        assert not output.is_intact(tmp_path / "out")
        copied.unlink()
        assert not output.is_intact(tmp_path / "out")


def test_copies_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_traps(tmp_path / "tree" / "images", tmp_path / "tree" / "labels")
    task = tasks_of(open_source([zip_tree(tmp_path / "tree", tmp_path / "a.zip")]))["cmyk"]
    rules = PairRules(20, LIP_PALETTE, target=tmp_path / "out", image_folder="i", label_folder="l")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        check_pair(task, rules)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_other_ignore_labels(tmp_path: Path) -> None:
    labels = np.full(SIZE, 3, np.uint8)
    labels[:2] = 77
    save_image(tmp_path / "images" / "a.png", np.zeros((*SIZE, 3), np.uint8))
    save_image(tmp_path / "labels" / "a.png", labels)
    task = tasks_of(open_source([tmp_path]))["a"]
    result = check_pair(task, PairRules(20, ignore_label=77))
    assert (result.status, result.ignored) == (PairStatus.CHECKED, 2 * SIZE[1])
    assert check_pair(task, RULES).status is PairStatus.VALUES
    save_image(tmp_path / "labels" / "a.png", np.full(SIZE, 255, np.uint8))
    assert check_pair(task, PairRules(20, ignore_label=77)).status is PairStatus.VALUES


def test_count_labels() -> None:
    results = [
        PairResult(PairStatus.CHECKED, pixel_counts=(5, 0), ignored=1),
        PairResult(PairStatus.UNCHANGED, pixel_counts=(2, 3)),
        PairResult(PairStatus.VALUES, pixel_counts=(100, 100), ignored=100),
        PairResult(PairStatus.CHECKED),
    ]
    pixels, images = count_labels(results, 2)
    assert (pixels.tolist(), images.tolist()) == ([7, 3, 1], [2, 1, 1])
    assert count_labels([], 2)[0].tolist() == [0, 0, 0]


def halved(data: bytes, path: str) -> UInt8Array | None:
    """A conversion: every label halved; images of label 0 alone are none of the set's."""
    labels = decode_label(data, path)
    return labels // 2 if labels.any() else None


def test_converted_labels_are_written_and_counted(tmp_path: Path) -> None:
    truth = plant_traps(tmp_path / "images", tmp_path / "labels")
    task = tasks_of(open_source([tmp_path]))["rgb_label"]
    rules = PairRules(
        10, LIP_PALETTE, convert=halved, target=tmp_path / "out", label_folder="labels/train"
    )
    result = check_pair(task, rules)
    assert result.record is not None and result.record.label == "rgb_label.png"
    written = read_label(tmp_path / "out" / "labels" / "train" / "rgb_label.png", 10)
    assert np.array_equal(written, truth["rgb_label"] // 2)
    assert sum(result.pixel_counts) == written.size and len(result.pixel_counts) == 10


def test_images_without_a_part_are_dropped(tmp_path: Path) -> None:
    plant_traps(tmp_path / "images", tmp_path / "labels")
    save_image(tmp_path / "labels" / "grey_label.png", np.zeros(SIZE, np.uint8))
    task = tasks_of(open_source([tmp_path]))["grey_label"]
    result = check_pair(task, PairRules(10, convert=halved))
    assert result == PairResult(PairStatus.DROPPED, mode="RGB")


def test_split_without_labels(tmp_path: Path) -> None:
    plant_traps(tmp_path / "images", tmp_path / "labels")
    images = open_source([tmp_path]).find_folder(["images"])
    assert images is not None
    task = next(t for t in pair_files(SplitFiles(images, None, None)) if t.image_id == "turned")
    result = check_pair(task, RULES)
    assert result.status is PairStatus.CHECKED and result.pixel_counts == ()
    # Nothing says that it should be turned.
    assert result.record is not None and result.record.label == ""
    assert (result.record.height, result.record.width) == SIZE[::-1]


def test_output_file_time_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    status = (tmp_path / "a").stat()
    assert OutputFile("a", 1, status.st_mtime_ns).is_intact(tmp_path)
    assert not OutputFile("a", 1, status.st_mtime_ns + 1).is_intact(tmp_path)
    assert not OutputFile("a", 2, status.st_mtime_ns).is_intact(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (1, 7)])
def test_tiny_pairs(tmp_path: Path, size: tuple[int, int]) -> None:
    save_image(tmp_path / "images" / "a.png", np.zeros((*size, 3), np.uint8))
    save_image(tmp_path / "labels" / "a.png", np.full(size, 19, np.uint8))
    result = check_pair(tasks_of(open_source([tmp_path]))["a"], RULES)
    assert result.pixel_counts[19] == size[0] * size[1]
