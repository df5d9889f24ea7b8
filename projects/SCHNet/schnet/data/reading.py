"""Reading photos; every bad file is named.

JPEGs are decoded by OpenCV, which is the fastest and can decode at a reduced scale; everything
OpenCV would get wrong (CMYK, 16 bit, damaged tails) goes through Pillow.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

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
_JPEG_END = b"\xff\xd9"
# Some cameras and tools append a few bytes after a JPEG's end mark.
_JPEG_TAIL = 1024
PILLOW_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError),
    # Its readers and writers of single formats raise whatever comes of what they did not expect.
    *(TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, struct.error),
)
"""What Pillow raises for files that are no images, or damaged."""

# What EXIF's orientations ask for. Pillow's own `exif_transpose` also writes the whole EXIF block
# anew, which fails where any entry of it has a type that it should not have.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
            raise InputError(unreadable("image", self.path, "its JPEG data are damaged"))
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)  # type: ignore[return-value]


def open_image(path: PathLike) -> EncodedImage:
    """Read an image file and its header.

    Raises:
        InputError: the file is missing or no image.
    """
    return parse_image(read_bytes(path, "image"), path)


def parse_image(data: bytes, path: PathLike) -> EncodedImage:
    """Read the header of an image file's bytes.

    Args:
        data: the whole file.
        path: where it comes from, for messages.

    Raises:
        InputError: it is no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            mode = image.mode
            plain_jpeg = image.format in ("JPEG", "MPO") and mode in ("RGB", "L")
            orientation = orientation_of(image)
    except PILLOW_ERRORS as error:
        raise InputError(unreadable("image", path, error)) from None
    # OpenCV 4 fills what a cut-off JPEG lacks with grey and says nothing; Pillow refuses it.
    whole = data.rfind(_JPEG_END, max(0, len(data) - _JPEG_TAIL)) >= 0
    return EncodedImage(
        os.fspath(path), data, height, width, mode, plain_jpeg and whole, orientation
    )


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1 where there is none or it is no valid one."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except PILLOW_ERRORS:  # the pixels may be sound
        return 1
    return int(value) if value in range(1, 9) else 1


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
    return decode_upright(encoded) if apply_exif else encoded.decode()


def decode_upright(encoded: EncodedImage) -> UInt8Array:
    """Decode an image as its EXIF orientation says.

    Returns:
        uint8 (H, W, 3), RGB, contiguous.

    Raises:
        InputError: the file is damaged.
    """
    return _decode_with_pillow(encoded, apply_exif=True)


def turned_upright(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Turn pixels (H, W) or (H, W, 3) as an EXIF orientation, 1 to 8, says."""
    if orientation not in _TURNS:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TURNS[orientation]))


def pixels_of(image: Image.Image) -> UInt8Array:
    """Convert Pillow's image to uint8 (H, W, 3), RGB; transparency is dropped.

    Raises:
        ValueError: its pixels are floating-point numbers, of which nobody knows the range.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, and of what range is not said")
    if image.mode.startswith("I"):
        # Pillow's own conversion would clip 16-bit values at 255. Its mode of 32 bits does not say
        # of how many its values are.
        values = np.asarray(image).astype(np.int64)
        bits = 8 if image.mode == "I" and values.max(initial=0) <= 255 else 16
        grey = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _decode_with_pillow(encoded: EncodedImage, *, apply_exif: bool) -> UInt8Array:
    try:
        with Image.open(io.BytesIO(encoded.data)) as image:
            pixels = pixels_of(image)
    except PILLOW_ERRORS as error:
        raise InputError(unreadable("image", encoded.path, error)) from None
    return turned_upright(pixels, encoded.orientation) if apply_exif else pixels


def read_bytes(path: PathLike, kind: str) -> bytes:
    """Read a file whole.

    Args:
        path: the file.
        kind: what it is, for messages: `image`, `label map`.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # of a NUL in the path Python says ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(unreadable(kind, path, reason)) from None


def unreadable(kind: str, path: PathLike, reason: object) -> str:
    """Word that a file cannot be read.

    Args:
        kind: what it is: `image`, `label map`.
        path: where it is.
        reason: an error, or words.
    """
    if isinstance(reason, UnidentifiedImageError):
        reason = "it is no image"  # Pillow names the bytes' address in memory
    return (
        f"the {kind} {os.fspath(path)} cannot be read ({reason}): replace the file or leave it out"
    )
