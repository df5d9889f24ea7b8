from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from permissions import locked_folder
from PIL import Image

from schnet.comparison import Comparison, find_truths, require_different_stems
from schnet.data.reading import decode_upright, open_image
from schnet.errors import InputError
from schnet.parsing import Parsing

PALETTE = ((0, 0, 0), (250, 0, 0), (0, 0, 250))


def _labels(height: int = 30, width: int = 40) -> np.ndarray:
    labels = np.zeros((height, width), np.uint8)
    labels[:10] = 1
    return labels


def _photo(path: Path, height: int = 30, width: int = 40, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), (90, 90, 90)).save(path, exif=exif)
    return path


def _truth(folder: Path, labels: np.ndarray, name: str = "a.png") -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    Image.fromarray(labels).save(folder / name)
    return find_truths(folder)


def _parsing(photo: Path, labels: np.ndarray) -> Parsing:
    image = decode_upright(open_image(photo))
    return Parsing(labels, ("background", "hat", "coat"), PALETTE, image)


def test_scores_are_those_of_the_pixels(tmp_path: Path) -> None:
    truth, found = _labels(), _labels()
    truth[29] = 255
    found[:5] = 2
    photo = _photo(tmp_path / "a.jpg")
    comparison = Comparison(_truth(tmp_path / "truth", truth), 3)
    compared = comparison.add(photo, open_image(photo), _parsing(photo, found))
    assert compared.problem is None and not compared.missing
    # 200 of 1160 labelled pixels are coat in place of hat: IoU 760/760, 200/400 and 0/200.
    assert comparison.summary() == (
        "compared 1 photo with the truth, all pixels together: pixel accuracy 82.8 %, mIoU 50.0 %"
    )
    picture = compared.picture
    # Enlarged to 320 x 240 each, beside each other, with a line above and one below.
    assert picture.shape[1] == 3 * 320 + 2 * 6 + 2 * 16
    cells = [picture[60, 16 + column * 326 + 160] for column in range(3)]
    assert [cell.tolist() for cell in cells] == [[90, 90, 90], [250, 0, 0], [0, 0, 250]]


def test_a_missing_truth_is_said(tmp_path: Path) -> None:
    photo = _photo(tmp_path / "b.jpg")
    comparison = Comparison(_truth(tmp_path / "truth", _labels()), 3)
    compared = comparison.add(photo, open_image(photo), _parsing(photo, _labels()))
    assert compared.missing and compared.problem is None
    assert comparison.summary() == "compared no photo with a truth"
    # The truth's cell is paper with a few letters on it.
    cell = compared.picture[40:270, 16 + 326 : 16 + 326 + 320]
    assert (cell == 250).mean() > 0.95 and (cell < 100).any()


# Nothing tells a truth on a photo that is mirrored or upside down from one on the photo as stored.
@pytest.mark.parametrize(
    ("orientation", "as_stored"),
    [*((number, True) for number in range(1, 9)), *((number, False) for number in (1, 5, 6, 7, 8))],
)
def test_a_truth_is_turned_with_its_photo(
    tmp_path: Path, orientation: int, as_stored: bool
) -> None:
    photo = _photo(tmp_path / "a.jpg", orientation=orientation)
    stored = _labels()
    stored[:, :3] = 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "as_photo.png", exif=exif)
    upright = decode_upright(open_image(tmp_path / "as_photo.png"))[..., 0]
    comparison = Comparison(_truth(tmp_path / "truth", stored if as_stored else upright), 3)
    comparison.add(photo, open_image(photo), _parsing(photo, upright))
    assert "pixel accuracy 100.0 %" in comparison.summary()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (_labels(30, 41), r"is 40x30 pixels .* but its label map .* is 41x30"),
        (_labels() * 7, "holds the value 7"),
        (np.dstack([_labels(), _labels() * 2, _labels()]), "is a picture in colours"),
    ],
)
def test_a_truth_that_cannot_be_used_is_told(tmp_path: Path, labels: np.ndarray, told: str) -> None:
    photo = _photo(tmp_path / "a.jpg")
    comparison = Comparison(_truth(tmp_path / "truth", labels), 3)
    compared = comparison.add(photo, open_image(photo), _parsing(photo, _labels()))
    assert compared.problem is not None
    with pytest.raises(InputError, match=told):
        raise InputError(compared.problem)
    assert "no photo" in comparison.summary()


def test_a_truth_without_a_labelled_pixel(tmp_path: Path) -> None:
    photo = _photo(tmp_path / "a.jpg")
    comparison = Comparison(_truth(tmp_path / "truth", np.full((30, 40), 255, np.uint8)), 3)
    compared = comparison.add(photo, open_image(photo), _parsing(photo, _labels()))
    assert compared.problem is None
    assert "no photo" in comparison.summary()


def test_truths_and_photos_belong_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        find_truths(tmp_path / "gone")
    (tmp_path / "truth").mkdir()
    with pytest.raises(InputError, match=r"holds no \.png"):
        find_truths(tmp_path / "truth")
    truths = _truth(tmp_path / "truth", _labels())
    require_different_stems([Path("x/a.jpg"), Path("x/b.jpg"), Path("y/b.jpg")], truths)
    with pytest.raises(InputError, match=r"x/a\.jpg and y/a\.png would both be compared"):
        require_different_stems([Path("x/a.jpg"), Path("y/a.png")], truths)
    with locked_folder("a.png") as folder, pytest.raises(InputError, match="locked cannot be read"):
        find_truths(folder)
    (tmp_path / "truth" / "more").mkdir()
    with pytest.raises(InputError, match=r"the truth of a cannot be told"):
        _truth(tmp_path / "truth", _labels(), "more/a.PNG")
