"""Working arrays that are used again from image to image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


class Scratch:
    """Byte arrays by name, which grow with the largest image and are never given back.

    An evaluation works on a handful of arrays of an image's size, thousands of times. Fresh ones
    come from the operating system page by page, which takes longer than what is done with them.
    """

    def __init__(self) -> None:
        """Start without any."""
        self._arrays: dict[str, npt.NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Give the array of a name in a shape.

        Args:
            name: which array; asking for it again invalidates what it held.
            shape: of the result.

        Returns:
            uint8, contiguous, its values left from its last use.
        """
        size = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = np.empty(size, np.uint8)
        return array[:size].reshape(shape)
