from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA
from data_helpers import color_of, patchwork, save_image
from PIL import Image

from schnet.data.labels import LIP_PALETTE
from schnet.data.reading import (
    UInt8Array,
    check_same_size,
    open_image,
    read_image,
    read_label,
    read_label_size,
    write_label_png,
)
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


def test_label_size_comes_from_the_header(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", patchwork((30, 40)))
    path.write_bytes(path.read_bytes()[:60])
    assert read_label_size(path) == (30, 40)
    for broken in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(InputError, match=r"the label map .* cannot be read"):
            read_label_size(broken)


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
    for name in ("text.png", "nothing.png", "."):
        with pytest.raises(InputError, match="the image .* cannot be read"):
            read_image(tmp_path / name)
        with pytest.raises(InputError, match="the label map .* cannot be read"):
            read_label(tmp_path / name, 20)


def test_palette_png_round_trip(tmp_path: Path) -> None:
    labels = patchwork((30, 40))
    labels[:3] = 255
    write_label_png(tmp_path / "new" / "a.png", labels, LIP_PALETTE)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.mode == "P"
        assert tuple(np.array(image.convert("RGB"))[0, 0]) == (255, 255, 255)
        assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    assert np.array_equal(read_label(tmp_path / "new" / "a.png", 20), labels)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_grey_sixteen_bit_and_colour_label_maps(tmp_path: Path) -> None:
    labels = patchwork((30, 40))
    save_image(tmp_path / "grey.png", labels)
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "wide.png")
    save_image(tmp_path / "rgb.png", np.dstack([labels, labels * 0 + 99, labels * 0]))
    Image.fromarray(labels > 3).save(tmp_path / "bits.png")
    for name in ("grey.png", "wide.png", "rgb.png"):
        assert np.array_equal(read_label(tmp_path / name, 20), labels), name
    assert np.array_equal(read_label(tmp_path / "bits.png", 2), labels > 3)


def test_grey_pngs_are_read_by_opencv_and_palettes_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = patchwork((30, 40))
    grey = save_image(tmp_path / "grey.png", labels)
    see_through = save_image(tmp_path / "see_through.png", labels, transparency=3)
    write_label_png(tmp_path / "palette.png", labels, LIP_PALETTE)
    exif = Image.Exif()
    exif[0x0112] = ROTATE_90
    turned = save_image(tmp_path / "turned.png", labels, exif=exif)
    for path in (grey, see_through, tmp_path / "palette.png", turned):
        assert np.array_equal(read_label(path, 20), labels), path
    monkeypatch.setattr(Image, "open", lambda file: pytest.fail("Pillow was asked"))
    assert read_label(grey, 20).flags["C_CONTIGUOUS"]
    assert np.array_equal(read_label(grey, 20), labels)
    with pytest.raises(pytest.fail.Exception):
        read_label(tmp_path / "palette.png", 20)


@pytest.mark.parametrize("kept", [30, 100, 0.5, -30])
def test_damaged_grey_png_is_named(tmp_path: Path, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 20, (64, 64), np.uint8)
    path = save_image(tmp_path / "bad.png", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(InputError, match=r"the label map .*bad\.png cannot be read"):
        read_label(path, 20)
    header = b"IHDR" + (40000).to_bytes(4, "big") * 2 + data[24:29]
    huge = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    path.write_bytes(huge)
    with pytest.raises(InputError, match=r"the label map .*bad\.png cannot be read"):
        read_label(path, 20)


def test_label_out_of_range_names_file_and_value(tmp_path: Path) -> None:
    labels = np.array([[0, 19, 255, 37, 40]], np.uint8)
    save_image(tmp_path / "a.png", labels)
    with pytest.raises(InputError, match=r"a\.png holds the value 37, .* 0\.\.19 or 255"):
        read_label(tmp_path / "a.png", 20)
    assert np.array_equal(read_label(tmp_path / "a.png", 20, check=False), labels)
    with pytest.raises(InputError, match="holds the value 255, .* or 37"):
        read_label(tmp_path / "a.png", 41, ignore_label=37)
    Image.fromarray(np.array([[1, 300]], np.uint16)).save(tmp_path / "wide.png")
    with pytest.raises(InputError, match="holds the value 300"):
        read_label(tmp_path / "wide.png", 20, check=False)


def test_largest_label_and_ignored_pixels_pass(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", np.array([[19, 255]], np.uint8))
    assert read_label(tmp_path / "a.png", 20).tolist() == [[19, 255]]


def test_different_sizes_are_both_named() -> None:
    check_same_size((2, 3), np.zeros((2, 3), np.uint8), "a.jpg", "a.png")
    with pytest.raises(InputError, match=r"a\.jpg is 3x2 .* a\.png is 2x3"):
        check_same_size((2, 3), np.zeros((3, 2), np.uint8), "a.jpg", "a.png")


def test_colour_is_label_helper_is_exact() -> None:
    assert (color_of(patchwork((20, 20))) // 12 == patchwork((20, 20))[:, :, None]).all()


@pytest.mark.skipif(not CIHP.is_dir(), reason=f"the real CIHP samples are not at {CIHP}")
def test_real_cihp_pairs() -> None:
    photos = sorted((CIHP / "Images").iterdir())
    assert photos
    for path in photos:
        label_path = CIHP / "Category_ids" / f"{path.stem}.png"
        image, label = read_image(path), read_label(label_path, 20)
        check_same_size((image.shape[0], image.shape[1]), label, path, label_path)
        assert len(np.unique(label)) > 3
