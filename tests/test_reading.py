from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA
from data_helpers import save_image
from PIL import Image

from schnet.data.label_maps import check_same_size, read_label
from schnet.data.reading import UInt8Array, open_image, read_image
from schnet.errors import InputError

CIHP = SHARED_DATA / "cihp" / "Training"
ROTATE_90 = 6


def photo(size: tuple[int, int] = (40, 30)) -> UInt8Array:
    """Smooth, and different in each channel, so that any swap shows."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    channels = (rows * 255 // size[0], columns * 255 // size[1], np.full(size, 40))
    return np.stack(channels, axis=2).astype(np.uint8)


def close(first: UInt8Array, second: UInt8Array, tolerance: int = 4) -> bool:
    return bool((np.abs(first.astype(int) - second.astype(int)) <= tolerance).all())


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.bmp"])
def test_rgb_files(tmp_path: Path, name: str) -> None:
    path = save_image(tmp_path / name, photo())
    pixels = read_image(path)
    assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"]
    assert pixels.shape == (40, 30, 3) and close(pixels, photo())


def test_grey_jpeg_becomes_rgb(tmp_path: Path) -> None:
    pixels = read_image(save_image(tmp_path / "a.jpg", photo()[:, :, 0], subsampling=-1))
    assert pixels.shape == (40, 30, 3)
    assert all(close(pixels[:, :, channel], photo()[:, :, 0]) for channel in range(3))


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo()).convert("CMYK").save(path, quality=100)
    assert not open_image(path).reducible
    assert close(read_image(path), photo(), 8)


def test_sixteen_bit_png_is_scaled(tmp_path: Path) -> None:
    values = photo()[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(values).save(tmp_path / "a.png")
    assert close(read_image(tmp_path / "a.png")[:, :, 1], photo()[:, :, 0], 1)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    rgba = np.dstack([photo(), np.full((40, 30), 7, np.uint8)])
    save_image(tmp_path / "a.png", rgba)
    assert np.array_equal(read_image(tmp_path / "a.png"), photo())


def test_exif_rotation_only_on_request(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = ROTATE_90
    path = save_image(tmp_path / "a.jpg", photo(), exif=exif)
    assert close(read_image(path), photo())
    assert close(read_image(path, apply_exif=True), np.rot90(photo(), -1))


def exif_jpeg(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save_image(path, photo(), exif=exif)


def test_image_matches_a_size_as_stored_or_after_its_exif_rotation(tmp_path: Path) -> None:
    encoded = open_image(exif_jpeg(tmp_path / "a.jpg", ROTATE_90))
    assert encoded.orientation == ROTATE_90
    assert encoded.matching((40, 30)) is encoded and close(encoded.decode(), photo())
    turned = encoded.matching((30, 40))
    assert (turned.height, turned.width, turned.reducible) == (30, 40, False)
    assert close(turned.decode(), np.rot90(photo(), -1))
    # Turned already, or no size of its: nothing more can be done.
    assert turned.matching((40, 30)) is turned
    assert encoded.matching((31, 40)) is encoded


@pytest.mark.parametrize("orientation", [1, 3, 4, 9])
def test_orientations_that_keep_the_sides_turn_nothing(tmp_path: Path, orientation: int) -> None:
    encoded = open_image(exif_jpeg(tmp_path / "a.jpg", orientation))
    assert encoded.matching((30, 40)) is encoded
    assert close(encoded.decode(), photo())


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_decoding_averages_blocks(tmp_path: Path, reduction: int) -> None:
    encoded = open_image(save_image(tmp_path / "a.jpg", photo((64, 72))))
    assert encoded.reducible
    blocks = photo((64, 72)).astype(float)
    blocks = blocks.reshape(64 // reduction, reduction, 72 // reduction, reduction, 3)
    assert close(encoded.decode(reduction), blocks.mean((1, 3)).astype(np.uint8), 5)


@pytest.mark.parametrize("kept", [0, 100, 0.6, -2])
def test_damaged_jpeg_is_named(tmp_path: Path, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = save_image(tmp_path / "bad.jpg", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(InputError, match=r"the image .*bad\.jpg cannot be read"):
        read_image(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png cannot be read \(it is no image\)"):
        read_image(tmp_path / "text.png")
    for name in ("text.png", "nothing.png", "."):
        with pytest.raises(InputError, match="the image .* cannot be read"):
            read_image(tmp_path / name)
        with pytest.raises(InputError, match="the label map .* cannot be read"):
            read_label(tmp_path / name, 20)


@pytest.mark.skipif(not CIHP.is_dir(), reason=f"the real CIHP samples are not at {CIHP}")
def test_real_cihp_pairs() -> None:
    photos = sorted((CIHP / "Images").iterdir())
    assert photos
    for path in photos:
        label_path = CIHP / "Category_ids" / f"{path.stem}.png"
        image, label = read_image(path), read_label(label_path, 20)
        check_same_size((image.shape[0], image.shape[1]), label, path, label_path)
        assert len(np.unique(label)) > 3
