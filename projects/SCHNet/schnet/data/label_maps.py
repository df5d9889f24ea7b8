"""Reading and writing label maps; every bad file is named.

Grey PNGs are decoded by OpenCV, which is faster; everything it would get wrong (palette PNGs as
indices, 16 bit, damage) goes through Pillow.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schnet.data.files import atomic_path
from schnet.data.labels import IGNORE_LABEL
from schnet.data.reading import PILLOW_ERRORS, PathLike, UInt8Array, read_bytes, unreadable
from schnet.errors import InputError

_PNG_START = b"\x89PNG\r\n\x1a\n"
# Bit depth and colour type, bytes 24 and 25 of a PNG. OpenCV would expand a palette (type 3).
_PNG_8_BIT_GREY = (8, 0)


def read_label(
    path: PathLike,
    num_classes: int,
    ignore_label: int = IGNORE_LABEL,
    check: bool = True,
    refuse_colors: bool = False,
) -> UInt8Array:
    """Read a label map: palette and grey images as their indices, colour images' first channel.

    Args:
        path: usually a PNG.
        num_classes: K; labels are 0..K-1.
        ignore_label: the one value allowed besides.
        check: refuse other values.
        refuse_colors: refuse colour images whose channels differ, which are masks to look at in
            one's own data; published ones keep their labels in the first channel.

    Returns:
        uint8 (H, W), contiguous.

    Raises:
        InputError: the file is missing, no image or damaged, or (where `check`) holds a value
            outside the range; the file and the value are named. Or it is a colour mask.
    """
    labels = decode_label(read_bytes(path, "label map"), path, refuse_colors)
    if check:
        check_label_range(labels, path, num_classes, ignore_label)
    return labels


def decode_label(data: bytes, path: PathLike, refuse_colors: bool = False) -> UInt8Array:
    """Decode a label map file's bytes, as `read_label` does but for the check of its values.

    Args:
        data: the whole file.
        path: where it comes from, for messages.
        refuse_colors: refuse colour images whose channels differ.

    Returns:
        uint8 (H, W), contiguous.

    Raises:
        InputError: it is no image, damaged, holds values beyond a byte, or is a colour mask.
    """
    labels = _decode_grey_png(data)
    if labels is None:
        labels = _decode_labels(data, path, refuse_colors)
    return np.ascontiguousarray(labels)


def read_label_size(path: PathLike) -> tuple[int, int]:
    """Read a label map's height and width from its header.

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except PILLOW_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(unreadable("label map", path, reason)) from None


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
    with atomic_path(path) as temporary:
        _palette_image(labels, palette).save(temporary, format="PNG")


def label_png(labels: UInt8Array, palette: Sequence[Sequence[int]]) -> bytes:
    """The bytes of what `write_label_png` would write."""
    file = io.BytesIO()
    _palette_image(labels, palette).save(file, format="PNG")
    return file.getvalue()


def _palette_image(labels: UInt8Array, palette: Sequence[Sequence[int]]) -> Image.Image:
    flat = [channel for color in palette for channel in color]
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(flat + [255] * (768 - len(flat)))
    return image


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


def _decode_labels(data: bytes, path: PathLike, refuse_colors: bool) -> UInt8Array:
    try:
        with Image.open(io.BytesIO(data)) as image:
            values = np.asarray(image)
    except PILLOW_ERRORS as error:
        raise InputError(unreadable("label map", path, error)) from None
    if values.ndim == 3:
        # A fourth channel is transparency.
        if refuse_colors and (values[:, :, :3] != values[:, :, :1]).any():
            raise InputError(
                f"the label map {os.fspath(path)} is a picture in colours, not of label values: "
                "write each pixel's label (0, 1, 2, ...) into an 8-bit PNG, grey or with a palette"
            )
        values = values[:, :, 0]
    return _as_uint8_labels(values, path)


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
