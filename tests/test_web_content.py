from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from parsing_fakes import fake_parser, half_bright
from PIL import Image

from schnet.errors import InputError
from schnet.parsing import Parsing
from schnet.web.content import (
    PhotoPage,
    label_runs,
    message,
    page_content,
    part_rows,
    percent_words,
    read_upload,
)

CLASSES = ("Background", "hat", "coat")
PALETTE = ((0, 0, 0), (250, 1, 16), (0, 0, 250))


def _decoded(runs: list[int]) -> np.ndarray:
    return np.repeat(runs[::2], runs[1::2])


def test_runs_give_the_label_map_back() -> None:
    assert label_runs(np.array([[3, 3, 3], [3, 0, 0]], np.uint8)) == [3, 4, 0, 2]
    assert label_runs(np.array([[5]], np.uint8)) == [5, 1]
    labels = np.random.default_rng(0).integers(0, 4, (37, 23), dtype=np.uint8)
    assert np.array_equal(_decoded(label_runs(labels)), labels.ravel())


def test_parts_are_listed_by_their_share_and_the_background_last() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[:20] = 2
    labels[50, :4] = 1
    rows = part_rows(Parsing(labels, CLASSES, PALETTE))
    assert [(r["label"], r["name"], r["color"], r["percent"]) for r in rows] == [
        (2, "coat", "#0000fa", "20.0 %"),
        (1, "hat", "#fa0110", "< 0.1 %"),
        (0, "Background", "", "80.0 %"),
    ]
    assert percent_words(0.0005) == "0.1 %" and percent_words(1) == "100.0 %"


@pytest.mark.parametrize(
    ("size", "shown"), [((30, 20), (30, 20)), ((2560, 1000), (1280, 500)), ((10, 3000), (4, 1280))]
)
def test_the_page_gets_a_photo_and_labels_of_one_bounded_size(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    image = half_bright(*size[::-1])
    labels = (image[..., 0] > 0).astype(np.uint8)
    content = page_content(Parsing(labels, CLASSES, PALETTE, image), "a.jpg")
    assert (content["width"], content["height"]) == shown
    assert content["size"] == list(size)
    kind, data = content["photo"].split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as photo:
        assert photo.size == shown
    again = _decoded(content["runs"]).reshape(shown[::-1])
    assert again[0, 0] == 0 and again[0, -1] == 1


def test_an_upload_is_parsed_upright_and_its_files_are_of_its_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upload = tmp_path / "upload" / "my photo.jpg"
    upload.parent.mkdir()
    Image.fromarray(half_bright(1200, 1600)).save(upload, exif=exif)
    kept = tmp_path / "kept"
    kept.mkdir()
    content, words, labels, overlay = PhotoPage(fake_parser(), kept).parse(str(upload))
    assert words == ""
    assert (content["name"], content["size"]) == ("my photo.jpg", [1200, 1600])
    assert labels is not None and overlay is not None
    assert Path(labels).name == "my photo_parts.png"
    with Image.open(labels) as image:
        assert image.mode == "P" and image.size == (1200, 1600)
        values = np.asarray(image)
    assert values[:700].max() == 0 and values[900:].min() == 1
    with Image.open(overlay) as image:
        assert image.size == (1200, 1600)
    # Another photo of the same name has files of its own.
    again = PhotoPage(fake_parser(), kept).parse(str(upload))
    assert again[2] != labels and Path(labels).exists()


def test_a_bad_file_is_told_by_its_own_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    content, words, labels, overlay = PhotoPage(fake_parser(), tmp_path).parse(str(broken))
    assert content == {} and labels is None and overlay is None
    assert words.startswith("the image broken.jpg cannot be read (it is no image)")
    assert str(tmp_path) not in words
    with pytest.raises(InputError):
        read_upload(broken)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.jpg"]


def test_a_message_is_text() -> None:
    assert message("") == ""
    assert "&lt;b&gt;" in message("<b>") and 'role="alert"' in message("x")
