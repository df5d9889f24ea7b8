"""Photos as Python hands them over: a path, a file's bytes, Pillow's, NumPy's or torch's image.

Neither torch nor Detectron2 is imported here: what runs an exported model alone reads photos too.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from schnet.data.reading import (
    PILLOW_ERRORS,
    UInt8Array,
    decode_upright,
    orientation_of,
    parse_image,
    pixels_of,
    read_image,
    turned_upright,
    unreadable,
)
from schnet.errors import InputError

Photo = Any
"""`str`, `os.PathLike`, `bytes`, `PIL.Image.Image`, `numpy.ndarray` or `torch.Tensor`; see
`as_rgb`."""

BYTES_NAME = "(given as bytes)"


def as_rgb(photo: Photo) -> UInt8Array:
    """Give a photo's pixels, upright.

    Args:
        photo: one of
            a path, or the bytes of an image file: turned as the EXIF orientation says; grey,
            palette, CMYK and 16-bit images are converted, transparency is dropped;
            a Pillow image: likewise;
            a NumPy array (H, W, 3), uint8, RGB, which is taken as it is;
            a torch tensor (3, H, W), uint8, RGB, on any device.

    Returns:
        (H, W, 3), uint8, RGB, contiguous.

    Raises:
        InputError: the file is missing, no image, or damaged, or a URL is given.
        ValueError: the array or tensor is no such image.
        TypeError: it is none of these.
    """
    if isinstance(photo, (str, os.PathLike)):
        if "://" in os.fspath(photo):
            raise InputError(f"{photo} is a URL: download the photo, and give its path or bytes")
        return read_image(photo, apply_exif=True)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return decode_upright(parse_image(bytes(photo), BYTES_NAME))
    if isinstance(photo, Image.Image):
        try:
            return turned_upright(pixels_of(photo), orientation_of(photo))
        except PILLOW_ERRORS as error:
            name = getattr(photo, "filename", "") or "(given as a Pillow image)"
            raise InputError(unreadable("image", name, error)) from None
    if isinstance(photo, np.ndarray):
        return _checked(photo, "(H, W, 3)")
    if hasattr(photo, "detach") and hasattr(photo, "permute"):  # torch's, without importing it
        return _from_tensor(photo)
    raise TypeError(
        f"a photo must be a path, bytes, a Pillow image, a NumPy array or a tensor, not "
        f"{type(photo).__name__}"
    )


def _checked(array: np.ndarray, form: str) -> UInt8Array:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ValueError(f"an image must be {form} uint8 RGB, not {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def _from_tensor(tensor: Any) -> UInt8Array:
    shape, kind = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    # Floats may be of 0..1 or of 0..255, and a small image of either cannot be told apart.
    if len(shape) != 3 or shape[0] != 3 or kind != "uint8" or 0 in shape:
        raise ValueError(f"a tensor must be (3, H, W) uint8 RGB, not {shape} {kind}")
    return np.ascontiguousarray(tensor.detach().permute(1, 2, 0).cpu().numpy())
