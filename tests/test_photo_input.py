"""Photos of every kind: the same pixels, upright, whatever they are handed over as."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from schnet.errors import InputError
from schnet.photo_input import as_rgb

# Different at every corner, and not square: any turn shows.
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(PIXELS), exif=exif)


def kinds(photo: bytes, folder: Path) -> list[Any]:
    """A file's bytes in every kind that a file can be handed over as."""
    path = folder / "photo.png"
    path.write_bytes(photo)
    return [
        *(path, str(path), photo, bytearray(photo), memoryview(photo)),
        Image.open(io.BytesIO(photo)),
    ]


# What EXIF says that a viewer has to do with what is stored.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
def test_files_come_upright(orientation: int, tmp_path: Path) -> None:
    expected = TURNS[orientation](PIXELS)
    for photo in kinds(oriented(orientation), tmp_path):
        found = as_rgb(photo)
        assert np.array_equal(found, expected), type(photo)
        assert found.dtype == np.uint8 and found.flags.c_contiguous


def test_an_opened_image_stays_as_it_was() -> None:
    image = Image.open(io.BytesIO(oriented(6)))
    as_rgb(image)
    assert image.size == (9, 6) and image.getexif()[0x0112] == 6


def test_jpegs_agree_in_every_kind(tmp_path: Path) -> None:
    smooth = np.array(Image.fromarray(PIXELS).resize((64, 48), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[0x0112] = 8
    photo = encoded(Image.fromarray(smooth), "JPEG", quality=95, subsampling=0, exif=exif)
    found = [as_rgb(kind) for kind in kinds(photo, tmp_path)]
    assert all(np.array_equal(one, found[0]) for one in found)
    difference = found[0].astype(int) - TURNS[8](smooth)
    assert np.abs(difference).mean() < 4 and found[0].shape == (64, 48, 3)


def test_modes_are_converted(tmp_path: Path) -> None:
    grey = PIXELS[:, :, 0]
    rgb = Image.fromarray(PIXELS)
    transparent = rgb.copy()
    transparent.putalpha(Image.fromarray(np.full((6, 9), 3, np.uint8)))
    palette = rgb.quantize(64)
    expected = {
        "grey": (Image.fromarray(grey), np.repeat(grey[:, :, None], 3, 2)),
        "transparent": (transparent, PIXELS),
        "palette": (palette, np.asarray(palette.convert("RGB"))),
        "16 bit": (
            Image.fromarray(grey.astype(np.uint16) * 256 + 77),
            np.repeat(grey[:, :, None], 3, 2),
        ),
        "8 bit in 32": (
            Image.fromarray(grey.astype(np.int32)),
            np.repeat(grey[:, :, None], 3, 2),
        ),
        "16 bit in 32": (
            Image.fromarray(grey.astype(np.int32) * 256 + 255),
            np.repeat(grey[:, :, None], 3, 2),
        ),
        "one bit": (
            Image.fromarray(grey > 127),
            np.repeat(np.where(grey > 127, 255, 0)[:, :, None], 3, 2),
        ),
    }
    for name, (image, pixels) in expected.items():
        file_type = "TIFF" if image.mode == "I" else "PNG"  # Pillow's PNG is 16 bits at most
        for photo in [image, *kinds(encoded(image, file_type), tmp_path)]:
            found = as_rgb(photo)
            assert np.array_equal(found, pixels), (name, type(photo))
            assert found.dtype == np.uint8 and found.shape == (6, 9, 3)


@pytest.mark.parametrize("field_type", [2, 7])
def test_an_exif_entry_of_a_wrong_type_does_not_cost_the_photo(
    tmp_path: Path, field_type: int
) -> None:
    # TIFF: orientation 6 as it should be, then the unit of the resolution as a text or as bytes.
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    unit = struct.pack("<HHI4s", 0x0128, field_type, 2, b"a")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + unit + b"\0" * 4
    image = Image.fromarray(np.repeat(np.repeat(PIXELS, 8, 0), 8, 1))
    photo = encoded(image, "JPEG", quality=95, exif=exif)
    plain = np.asarray(Image.open(io.BytesIO(photo)))
    with pytest.raises((TypeError, struct.error)):
        ImageOps.exif_transpose(Image.open(io.BytesIO(photo)))
    for kind in kinds(photo, tmp_path):
        assert np.array_equal(as_rgb(kind), TURNS[6](plain))


def test_whatever_pillow_raises_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(InputError, match="cannot be read .*required argument"):
        as_rgb(encoded(Image.fromarray(PIXELS)))


def test_floats_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 5), 0.5, np.float32))
    for photo in [image, *kinds(encoded(image, "TIFF"), tmp_path)]:
        with pytest.raises(InputError, match="floating-point"):
            as_rgb(photo)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((16, 16, 3), (200, 40, 90), np.uint8)).convert("CMYK")
    assert np.abs(as_rgb(image).astype(int) - (200, 40, 90)).max() <= 2
    for photo in kinds(encoded(image, "JPEG", quality=95), tmp_path):
        assert np.abs(as_rgb(photo).astype(int) - (200, 40, 90)).max() <= 8, type(photo)


def test_arrays_and_tensors_are_taken_as_they_are() -> None:
    for array in (PIXELS, PIXELS[:, ::-1], np.asfortranarray(PIXELS)):
        found = as_rgb(array)
        assert np.array_equal(found, array) and found.flags.c_contiguous
    planes = torch.from_numpy(PIXELS).permute(2, 0, 1)
    for tensor in (planes, planes.contiguous(), planes.clone().requires_grad_(False)):
        found = as_rgb(tensor)
        assert np.array_equal(found, PIXELS) and found.flags.c_contiguous
        assert found.dtype == np.uint8


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 4, 5),
        torch.zeros(4, 5, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 4, 5, dtype=torch.uint8),
        torch.zeros(3, 0, 5, dtype=torch.uint8),
    ],
    ids=lambda t: f"{tuple(t.shape)}",
)
def test_other_tensors_are_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="a tensor must be"):
        as_rgb(tensor)


@pytest.mark.parametrize("photo", [None, 3, [PIXELS], {"image": PIXELS}], ids=repr)
def test_what_is_no_photo_is_refused(photo: Any) -> None:
    with pytest.raises(TypeError, match="a photo must be a path"):
        as_rgb(photo)


def test_urls_are_refused() -> None:
    for url in ("https://example.org/a.jpg", "s3://bucket/a.jpg", "file:///a.jpg"):
        with pytest.raises(InputError, match=f"{url} is a URL: download the photo"):
            as_rgb(url)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.jpg cannot be read \(No such file"):
        as_rgb(tmp_path / "missing.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        as_rgb(tmp_path)
    for photo in (b"", b"no image", oriented(1)[:-40], encoded(Image.new("RGB", (99, 99)))[:60]):
        path = tmp_path / "bad.png"
        path.write_bytes(photo)
        with pytest.raises(InputError, match="bad.png cannot be read"):
            as_rgb(path)
        with pytest.raises(InputError, match="given as bytes"):
            as_rgb(photo)
    whole = encoded(Image.fromarray(PIXELS.repeat(20, 0).repeat(20, 1)), "JPEG")
    with pytest.raises(InputError, match="given as bytes"):
        as_rgb(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="Pillow"):
        as_rgb(Image.open(io.BytesIO(whole[: len(whole) * 3 // 4])))


def test_turning_is_pillows_own() -> None:
    for orientation, turn in TURNS.items():
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(oriented(orientation))))
        assert np.array_equal(np.asarray(upright), turn(PIXELS))


def test_the_core_needs_neither_torch_nor_detectron2() -> None:
    """What runs an exported model with onnxruntime alone imports these."""
    modules = ("parsing", "photo_input", "photo_parser", "remap", "image_files", "visualization")
    code = "; ".join(
        [
            "import sys",
            *(f"import schnet.{module}" for module in modules),
            "bad = {'torch', 'detectron2', 'torchvision', 'fvcore'} & set(sys.modules)",
            "assert not bad, bad",
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
