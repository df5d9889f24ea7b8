from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_helpers import PALETTE
from PIL import Image

from schnet.data.label_maps import read_label
from schnet.errors import InputError
from schnet.evaluation.predictions import ARCHIVE_FOLDERS, PredictionFiles

LABELS = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)


def _entries(*photos: str) -> list[dict[str, Any]]:
    """Dataset dicts as the catalog makes them: the id is the name without its last ending."""
    return [
        {"file_name": f"/data/{photo}", "image_id": photo.rpartition(".")[0]} for photo in photos
    ]


def test_names_keep_all_but_the_last_ending(tmp_path: Path) -> None:
    entries = _entries("a.b.jpeg", "x.JPG", "sub/folder/y.png", "ends.png.jpg")
    files = PredictionFiles(tmp_path, entries, PALETTE)
    for entry in entries:
        files.write(entry["image_id"], LABELS)
    folder = tmp_path / "predictions"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert written == {"a.b.png", "x.png", "sub/folder/y.png", "ends.png.png"}
    assert len(files) == 4


def test_labels_are_indices_in_the_palette(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, _entries("x.jpg"), PALETTE)
    files.write("x", LABELS[::-1])
    files.write("x", LABELS)  # the latest counts
    path = tmp_path / "predictions" / "x.png"
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [channel for color in PALETTE for channel in color]
    assert np.array_equal(read_label(path, 3), LABELS)
    assert files.archive is None
    with pytest.raises(ValueError, match="no archive"):
        files.write_archive()


@pytest.mark.parametrize(
    "photos", [("x.jpg", "x.png"), ("s/x.jpg", "s/x.jpeg"), ("x.jpg", "X.jpg")]
)
def test_photos_that_would_share_a_file_are_refused(
    tmp_path: Path, photos: tuple[str, str]
) -> None:
    with pytest.raises(InputError, match=rf"/data/{photos[0]} and /data/{photos[1]} would both"):
        PredictionFiles(tmp_path, _entries(*photos), PALETTE)
    assert not list(tmp_path.iterdir())


def test_sub_folders_tell_names_apart_but_not_in_the_archive(tmp_path: Path) -> None:
    entries = _entries("a/x.jpg", "b/x.jpg")
    PredictionFiles(tmp_path, entries, PALETTE)
    with pytest.raises(InputError, match=r"would both be x\.png: .* TEST\.SUBMISSION_ZIP False"):
        PredictionFiles(tmp_path, entries, PALETTE, archive=True)


@pytest.mark.parametrize("image_id", ["/etc/x", "../x", "a/../../x", ""])
def test_ids_that_lead_out_of_the_folder_are_refused(tmp_path: Path, image_id: str) -> None:
    with pytest.raises(InputError, match="cannot name a file below predictions/"):
        PredictionFiles(tmp_path, [{"file_name": "x.jpg", "image_id": image_id}], PALETTE)


def test_archive_holds_the_files_as_they_are(tmp_path: Path) -> None:
    entries = _entries("b.jpg", "sub/a.c.jpg")
    files = PredictionFiles(tmp_path, entries, PALETTE, archive=True)
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "stale.png").write_bytes(b"of an earlier split")
    files.write("b", LABELS)
    files.write("sub/a.c", LABELS[:1])
    with zipfile.ZipFile(files.write_archive()) as archive:
        assert archive.namelist() == ["a.c.png", "b.png"]
        for info, name in zip(archive.infolist(), ["sub/a.c.png", "b.png"], strict=True):
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert archive.read(info) == (tmp_path / "predictions" / name).read_bytes()
        assert archive.testzip() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "submission.zip"]


def test_archive_of_the_same_files_is_the_same(tmp_path: Path) -> None:
    contents = []
    for folder, order in (("one", (0, 1)), ("two", (1, 0))):
        entries = _entries("a.jpg", "b.jpg")
        files = PredictionFiles(
            tmp_path / folder, [entries[i] for i in order], PALETTE, archive=True
        )
        for index in order:
            files.write("ab"[index], LABELS[index:])
        contents.append(files.write_archive().read_bytes())
    assert contents[0] == contents[1]


def test_archive_has_the_folder_that_the_server_wants(tmp_path: Path) -> None:
    folder = ARCHIVE_FOLDERS["cihp"]
    files = PredictionFiles(
        tmp_path, _entries("0000001.jpg"), PALETTE, archive=True, archive_folder=folder
    )
    files.write("0000001", LABELS)
    with zipfile.ZipFile(files.write_archive()) as archive:
        assert archive.namelist() == ["global_parsing/0000001.png"]


def test_missing_prediction_leaves_an_earlier_archive_as_it_was(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, _entries("a.jpg", "b.jpg"), PALETTE, archive=True)
    (tmp_path / "submission.zip").write_bytes(b"earlier")
    files.write("a", LABELS)
    with pytest.raises(InputError, match=r"predictions/b\.png is not there"):
        files.write_archive()
    assert (tmp_path / "submission.zip").read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "submission.zip"]


def test_image_of_another_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        PredictionFiles(tmp_path, _entries("a.jpg"), PALETTE).write("z", LABELS)
