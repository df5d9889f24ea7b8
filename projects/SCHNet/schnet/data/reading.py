"""Reading photos and label maps, writing label maps; every bad file is named.

JPEGs and grey PNGs are decoded by OpenCV, which is the fastest and can decode JPEGs at a reduced
scale; everything OpenCV would get wrong (palette PNGs as indices, CMYK, 16 bit, damaged tails) goes
through Pillow.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from schnet.data.files import atomic_path
from schnet.data.labels import IGNORE_LABEL
from schnet.errors import InputError

UInt8Array = NDArray[np.uint8]
PathLike = str | os.PathLike[str]

REDUCTIONS = (8, 4, 2, 1)
"""Factors that a JPEG can be decoded at, strongest first (libjpeg's DCT scaling)."""

_DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ORIENTATION_TAG = 0x0112
# Height and width change places in these EXIF orientations.
_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
_PNG_START = b"\x89PNG\r\n\x1a\n"
# Bit depth and colour type, bytes 24 and 25 of a PNG. OpenCV would expand a palette (type 3).
_PNG_8_BIT_GREY = (8, 0)
_JPEG_END = b"\xff\xd9"
# Some cameras and tools append a few bytes after a JPEG's end mark.
_JPEG_TAIL = 1024
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class EncodedImage:
    """An image file whose header has been read and whose pixels have not.

    Attributes:
        path: where it was read from.
        data: the file's bytes.
        height: height in pixels as stored, before any EXIF rotation.
        width: width in pixels as stored.
        mode: Pillow's mode, such as RGB, L, CMYK.
        reducible: it is a whole grey or YCbCr JPEG, which `decode` can shrink while decoding.
        orientation: EXIF orientation, 1 (as stored) to 8.
        turned: height, width and the decoded pixels are those after the EXIF rotation.
    """

    path: str
    data: bytes
    height: int
    width: int
    mode: str
    reducible: bool
    orientation: int = 1
    turned: bool = False

    def matching(self, size: tuple[int, int]) -> EncodedImage:
        """Give the image as it matches a size: as stored, or else after its EXIF rotation.

        Label maps are drawn on either, and only sizes can tell which; where both fit, the image
        stays as stored.

        Args:
            size: height and width of what belongs to the image, such as its label map.

        Returns:
            This image, or the same one `turned`, where only that has the size.
        """
        swaps = self.orientation in _SWAPPING_ORIENTATIONS and not self.turned
        if (self.height, self.width) == tuple(size) or not swaps:
            return self
        if (self.width, self.height) != tuple(size):
            return self
        return replace(self, height=self.width, width=self.height, reducible=False, turned=True)

    def decode(self, reduction: int = 1) -> UInt8Array:
        """Decode the pixels as stored or, where `turned`, as the EXIF orientation says.

        Args:
            reduction: 1, 2, 4 or 8; more than 1 only where `reducible`. A pixel of the result is
                the mean of `reduction` x `reduction` stored pixels (DCT scaling), so that stored
                row y lies in row y // reduction.

        Returns:
            uint8 (ceil(height / reduction), ceil(width / reduction), 3), RGB, contiguous.

        Raises:
            InputError: the file is damaged.
        """
        if not self.reducible:
            return _decode_with_pillow(self, apply_exif=self.turned)
        flags = _DECODE_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
        if pixels is None:
            raise InputError(_unreadable("image", self.path, "its JPEG data are damaged"))
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)  # type: ignore[return-value]


def open_image(path: PathLike) -> EncodedImage:
    """Read an image file and its header.

    Raises:
        InputError: the file is missing or no image.
    """
    data = _read_bytes(path, "image")
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            mode = image.mode
            plain_jpeg = image.format in ("JPEG", "MPO") and mode in ("RGB", "L")
            orientation = _orientation(image)
    except _PILLOW_ERRORS as error:
        raise InputError(_unreadable("image", path, error)) from None
    # OpenCV 4 fills what a cut-off JPEG lacks with grey and says nothing; Pillow refuses it.
    whole = data.rfind(_JPEG_END, max(0, len(data) - _JPEG_TAIL)) >= 0
    return EncodedImage(
        os.fspath(path), data, height, width, mode, plain_jpeg and whole, orientation
    )


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; 1 where there is none or it is no valid one."""
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if value in range(1, 9) else 1


def read_image(path: PathLike, *, apply_exif: bool = False) -> UInt8Array:
    """Read a photo.

    Args:
        path: any file that Pillow can read; grey, palette, CMYK and 16-bit images are converted,
            transparency is dropped.
        apply_exif: turn the image as its EXIF orientation says; otherwise it comes as stored,
            which is what label maps are drawn on.

    Returns:
        uint8 (H, W, 3), RGB, contiguous.

    Raises:
        InputError: the file is missing, no image, or damaged.
    """
    encoded = open_image(path)
    return _decode_with_pillow(encoded, apply_exif=True) if apply_exif else encoded.decode()


def read_label(
    path: PathLike, num_classes: int, ignore_label: int = IGNORE_LABEL, check: bool = True
) -> UInt8Array:
    """Read a label map: palette and grey images as their indices, colour images' first channel.

    Args:
        path: usually a PNG.
        num_classes: K; labels are 0..K-1.
        ignore_label: the one value allowed besides.
        check: refuse other values.

    Returns:
        uint8 (H, W), contiguous.

    Raises:
        InputError: the file is missing, no image or damaged, or (where `check`) holds a value
            outside the range; the file and the value are named.
    """
    data = _read_bytes(path, "label map")
    labels = _decode_grey_png(data)
    if labels is None:
        labels = _decode_labels(data, path)
    if check:
        check_label_range(labels, path, num_classes, ignore_label)
    return np.ascontiguousarray(labels)


def read_label_size(path: PathLike) -> tuple[int, int]:
    """Read a label map's height and width from its header.

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _PILLOW_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(_unreadable("label map", path, reason)) from None


def check_label_range(
    labels: UInt8Array, path: PathLike, num_classes: int, ignore_label: int = IGNORE_LABEL
) -> None:
    """Refuse label values that no class has.

    Raises:
        InputError: names the file, the smallest such value and the allowed range.
    """
    if labels.size == 0 or labels.max() < num_classes:
        return
    wrong = labels[(labels >= num_classes) & (labels != ignore_label)]
    if wrong.size:
        raise InputError(
            f"the label map {os.fspath(path)} holds the value {wrong.min()}, but labels must be "
            f"0..{num_classes - 1} or {ignore_label} (ignored): correct the file or take the "
            "config of its data set"
        )


def check_same_size(
    image_size: tuple[int, int],
    label: UInt8Array,
    image_path: PathLike,
    label_path: PathLike,
) -> None:
    """Refuse a label map that does not fit its image.

    Args:
        image_size: the image's height and width in pixels.
        label: (H, W).
        image_path: named in the message.
        label_path: named in the message.

    Raises:
        InputError: names both files with their sizes.
    """
    height, width = label.shape
    if (height, width) != tuple(image_size):
        raise InputError(
            f"the image {os.fspath(image_path)} is {image_size[1]}x{image_size[0]} pixels (width "
            f"x height) but its label map {os.fspath(label_path)} is {width}x{height}: both must "
            "have one size"
        )


def write_label_png(path: PathLike, labels: UInt8Array, palette: Sequence[Sequence[int]]) -> None:
    """Write a label map as a palette PNG, atomically.

    Args:
        path: the PNG to write; its folder is made where it is missing.
        labels: uint8 (H, W); the values are stored as they are.
        palette: (red, green, blue) in 0..255 for the values 0, 1, ...; other values are shown in
            white.
    """
    flat = [channel for color in palette for channel in color]
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(flat + [255] * (768 - len(flat)))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _decode_with_pillow(encoded: EncodedImage, *, apply_exif: bool) -> UInt8Array:
    try:
        with Image.open(io.BytesIO(encoded.data)) as image:
            turned = ImageOps.exif_transpose(image) if apply_exif else image
            if turned.mode.startswith("I"):
                # Pillow's own conversion would clip 16-bit values at 255.
                grey = (np.asarray(turned).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.array(turned.convert("RGB"))
    except _PILLOW_ERRORS as error:
        raise InputError(_unreadable("image", encoded.path, error)) from None


def _decode_grey_png(data: bytes) -> UInt8Array | None:
    """Decode an 8-bit grey PNG by OpenCV, in less time than Pillow takes; None for all else."""
    if not data.startswith(_PNG_START) or tuple(data[24:26]) != _PNG_8_BIT_GREY:
        return None
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        # Nothing where the file is damaged: Pillow finds words for that.
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[return-value]
    except cv2.error:
        return None


def _decode_labels(data: bytes, path: PathLike) -> UInt8Array:
    try:
        with Image.open(io.BytesIO(data)) as image:
            values = np.asarray(image)
    except _PILLOW_ERRORS as error:
        raise InputError(_unreadable("label map", path, error)) from None
    return _as_uint8_labels(values[:, :, 0] if values.ndim == 3 else values, path)


def _as_uint8_labels(values: NDArray[Any], path: PathLike) -> UInt8Array:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "biu" or values.ndim != 2:
        raise InputError(
            f"the label map {os.fspath(path)} holds {values.dtype} values: write it as an 8-bit "
            "PNG of label indices"
        )
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        worst = values.max() if values.max() > 255 else values.min()
        raise InputError(
            f"the label map {os.fspath(path)} holds the value {worst}: labels must be 0..255"
        )
    return values.astype(np.uint8)


def _read_bytes(path: PathLike, kind: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(_unreadable(kind, path, error.strerror or error)) from None


def _unreadable(kind: str, path: PathLike, reason: object) -> str:
    return (
        f"the {kind} {os.fspath(path)} cannot be read ({reason}): replace the file or take it out "
        "of the data set"
    )
