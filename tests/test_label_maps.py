from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from data_helpers import color_of, patchwork, save_image
from PIL import Image

from schnet.data.label_maps import check_same_size, read_label, read_label_size, write_label_png
from schnet.data.labels import LIP_PALETTE
from schnet.errors import InputError


def test_colour_masks_are_refused_where_they_must_not_be(tmp_path: Path) -> None:
    labels = patchwork((30, 40))
    equal = save_image(tmp_path / "equal.png", np.dstack([labels] * 3 + [labels * 0 + 9]))
    assert np.array_equal(read_label(equal, 20, refuse_colors=True), labels)
    mask = save_image(tmp_path / "mask.png", np.dstack([labels, labels * 0, labels]))
    assert np.array_equal(read_label(mask, 20), labels)
    with pytest.raises(InputError, match=r"mask\.png is a picture in colours.*8-bit PNG"):
        read_label(mask, 20, refuse_colors=True)


def test_label_size_comes_from_the_header(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", patchwork((30, 40)))
    path.write_bytes(path.read_bytes()[:60])
    assert read_label_size(path) == (30, 40)
    for broken in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(InputError, match=r"the label map .* cannot be read"):
            read_label_size(broken)


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
    exif[0x0112] = 6
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
